"""Following a stream of events across lost connections."""

import time
from collections.abc import Callable, Iterator

from muster.cli.client import Client, Refused, Unreachable
from muster.sse import SNAPSHOT_BYTES_MAX, ServerEvent, read_events

SILENCE_S = 45.0  # the control plane sends a comment every 15 s
GIVE_UP_AFTER_S = 60.0
_PAUSE_S = 1.0
_HTTP_SERVER_ERROR = 500  # it starts or stops: as good as not there


def follow(
    client: Client,
    path: str,
    *,
    after: str | None = None,
    pause: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[ServerEvent]:
    """Yield events for ever; a lost connection is taken up where it broke off.

    Raise Unreachable after a minute in which none could be made.
    """
    lost_at: float | None = None
    while True:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        try:
            with client.open("GET", path, headers=headers, silence_s=SILENCE_S) as answer:
                lost_at = None
                for event in read_events(answer.lines(), SNAPSHOT_BYTES_MAX):
                    after = event.id or after
                    yield event
        except (Unreachable, Refused) as error:
            if isinstance(error, Refused) and error.status < _HTTP_SERVER_ERROR:
                raise
            if lost_at is not None and now() - lost_at > GIVE_UP_AFTER_S:
                raise
        lost_at = now() if lost_at is None else lost_at
        pause(_PAUSE_S)
