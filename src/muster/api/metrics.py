"""`/metrics`: all figures in Prometheus' text format. A scrape never fails because a part is away."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from functools import lru_cache

from litestar import MediaType, Response, get

from muster import __version__
from muster import metrics as m
from muster.api.fleet_metrics import fleet_metrics
from muster.api.plane import Plane, ThePlane
from muster.control.jobs.queues import QueueState
from muster.errors import MusterError
from muster.metrics import Family, Metric, Sample

_STORE_TIMEOUT_S = 3.0  # a scrape has 10 s by default
_QUEUES_MAX = 100
_SAMPLES_AT_ONCE = 1_000  # then it is somebody else's turn: a large fleet has tens of thousands
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@get("/metrics", tags=["basics"], summary="Prometheus metrics", media_type=MediaType.TEXT)
async def metrics(plane: ThePlane) -> Response[bytes]:
    found = [metric async for metric in _all(plane)]
    return Response(await render(found), media_type="text/plain; version=0.0.4")


async def render(found: Iterable[Metric]) -> bytes:
    lines: list[str] = []
    count = 0
    for metric in found:
        family = metric.family
        lines.append(f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n")
        for sample in metric.samples:
            lines.append(_line(family, sample))
            count += 1
            if count % _SAMPLES_AT_ONCE == 0:
                await asyncio.sleep(0)
    return "".join(lines).encode()


def _line(family: Family, sample: Sample) -> str:
    suffix, values, value = sample
    if not values:
        return f"{family.name}{suffix} {value}\n"
    names = (*family.labels, "le") if suffix == "_bucket" else family.labels
    labels = ",".join([_label(name, text) for name, text in zip(names, values, strict=True)])
    return f"{family.name}{suffix}{{{labels}}} {value}\n"


@lru_cache(maxsize=16_384)
def _label(name: str, text: str) -> str:
    """Of a large fleet a few thousand come tens of thousands of times."""
    return f'{name}="{text.translate(_ESCAPES)}"'


async def _all(plane: Plane) -> AsyncIterator[Metric]:
    for metric in fleet_metrics(plane.fleet.nodes(), plane.clock.now_ms()):
        yield metric
    async for metric in _in_the_store(plane):
        yield metric
    for metric in (*plane.jobs.figures.metrics(), *_own(plane), *plane.http.metrics(), *plane.metrics()):
        yield metric


async def _in_the_store(plane: Plane) -> AsyncIterator[Metric]:
    started_s = plane.clock.monotonic_s()
    try:
        async with asyncio.timeout(_STORE_TIMEOUT_S):
            counts = await plane.jobs.counts()
            took_s = plane.clock.monotonic_s() - started_s
            queues = await plane.queues.queues()
            deliveries = await plane.webhooks.waiting()
            batches = await plane.batches.count_open()
    except (MusterError, TimeoutError):
        yield m.STORE_UP.single(0)
        return
    yield m.STORE_UP.single(1)
    yield m.STORE_CALL.single(took_s)
    yield m.DELIVERIES.single(deliveries)
    yield m.BATCHES.single(batches)
    yield m.JOBS.of({(status.value,): count for status, count in counts.items()})
    for metric in _of_queues(queues):
        yield metric


def _of_queues(queues: Sequence[QueueState]) -> Iterator[Metric]:
    """Name the largest; names are given by those who submit, so there may be any number of them."""
    largest = sorted(queues, key=lambda queue: -(queue.figures.waiting + queue.figures.running))
    named = {queue.figures.service: queue for queue in largest[:_QUEUES_MAX]}
    jobs: Counter[tuple[str, ...]] = Counter()
    for queue in largest:
        figures = queue.figures
        name = figures.service if figures.service in named else m.OTHER
        for state in ("waiting", "unworkable", "running"):
            jobs[name, state] += getattr(figures, state)
    oldest = {(name,): queue.oldest_age_s for name, queue in named.items()}
    yield m.QUEUE_JOBS.of(jobs)
    yield m.QUEUE_OLDEST.of({labels: age_s for labels, age_s in oldest.items() if age_s is not None})
    yield m.QUEUE_PAUSED.of({(name,): int(queue.figures.paused) for name, queue in named.items()})


def _own(plane: Plane) -> Iterator[Metric]:
    yield m.INFO.of({(__version__,): 1})
    if plane.files is not None:
        yield m.FILES.single(plane.files.total_bytes)
    yield m.WAITING_CLAIMS.single(plane.jobs.waiters)
    yield m.EVENT_READERS.single(plane.hub.readers + plane.telemetry.stream.readers)
    yield m.EVENT_GAPS.single(plane.hub.gaps)
    yield m.COMMANDS.of({(status.value,): count for status, count in plane.commands.counts().items()})
