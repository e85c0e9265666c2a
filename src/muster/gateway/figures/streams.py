"""How many answers are kept while they come, for whoever looks."""

from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import asdict, replace

from muster import metrics as m
from muster.metrics import Metric


class StreamsView(Struct, frozen=True, kw_only=True):
    """Answers that are kept while they come; `unread` are those whose callers have left. The rest since the start."""

    running: int = 0
    unread: int = 0
    kept_total: int = 0
    kept_bytes_total: int = 0
    resumed_total: int = 0
    taken_over_total: int = 0

    @property
    def of_an_ended(self) -> "StreamsView":
        """What is left of it when its gateway has ended."""
        return replace(self, running=0, unread=0)


def added_up(views: Iterable[StreamsView]) -> StreamsView:
    every = [asdict(view) for view in views]
    return StreamsView(**{name: sum(view[name] for view in every) for name in StreamsView.__struct_fields__})


def metrics_of(view: StreamsView) -> Iterator[Metric]:
    yield m.GATEWAY_STREAMS.of({("yes",): view.running - view.unread, ("no",): view.unread})
    yield m.GATEWAY_STREAMS_KEPT.single(view.kept_total)
    yield m.GATEWAY_STREAMS_BYTES.single(view.kept_bytes_total)
    yield m.GATEWAY_STREAMS_RESUMED.single(view.resumed_total)
    yield m.GATEWAY_STREAMS_TAKEN_OVER.single(view.taken_over_total)
