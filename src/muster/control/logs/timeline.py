"""What happened with one job, or for one request, in the order of time: facts of the log, and lines of all logs."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Literal

import msgspec
from msgspec import Struct

from muster.clock import Clock
from muster.control.jobs.service import JobService
from muster.control.logs.desk import CONTROL_PLANE, LogDesk
from muster.control.logs.merge import Note, Source, ToldLine, read_all
from muster.domain.event import Event
from muster.domain.job import TERMINAL, Job
from muster.ids import JobId, NodeId
from muster.ports import EventLog
from muster.wire.logs import LogLine, LogWish

_MARGIN_MS = 5_000  # clocks differ
_EVENTS_PER_PAGE = 1000
_PAGES_MAX = 100
_LINES_MAX = 2_000
_JOBS_MAX = 20
_LOOK_BACK_MS = 86_400_000  # for a request of which only the id is known


class TimelineEntry(Struct, frozen=True, kw_only=True):
    """`source` is `events`, or NODE/LOG; `seen`: the line told no time of its own, this is when it was seen."""

    at_ms: int | None
    source: str
    kind: Literal["event", "line"]
    text: str
    level: str | None = None
    seen: bool = False
    data: dict[str, Any] | None = None


class Timeline(Struct, frozen=True, kw_only=True):
    """`notes` say what is missing, and why."""

    job_ids: tuple[str, ...]
    correlation_id: str | None
    entries: tuple[TimelineEntry, ...]
    notes: tuple[str, ...]


class Timelines:
    def __init__(self, jobs: JobService, events: EventLog, desk: LogDesk, clock: Clock) -> None:
        self._jobs = jobs
        self._events = events
        self._desk = desk
        self._clock = clock

    async def of_job(self, job_id: JobId) -> Timeline:
        """Raise JobNotFound for one that is not known, or no more."""
        job = await self._jobs.get(job_id)
        facts = [event async for event in self._facts([job])]
        ids = [text for text in (job_id, job.spec.correlation_id) if text is not None]
        begin_ms, end_ms = self._span([job])
        wish = LogWish(any_of=tuple(ids), since_ms=begin_ms, until_ms=end_ms)
        lines, notes = await self._lines([CONTROL_PLANE, *_nodes_in(facts)], wish)
        return Timeline(
            job_ids=(job_id,),
            correlation_id=job.spec.correlation_id,
            entries=_in_order([*_entries_of(facts, {job_id}), *lines]),
            notes=tuple(notes),
        )

    async def of_request(self, correlation_id: str) -> Timeline:
        """Begin with what the control planes know of it: they name the jobs and workers that it led to."""
        now_ms = self._clock.now_ms()
        wish = LogWish(any_of=(correlation_id,), since_ms=now_ms - _LOOK_BACK_MS)
        here, notes = await self._lines([CONTROL_PLANE], wish)
        job_ids, nodes = _led_to(here)
        jobs = await self._jobs.get_many([JobId(job_id) for job_id in job_ids[:_JOBS_MAX]])
        facts = [event async for event in self._facts(jobs)] if jobs else []
        nodes = list(dict.fromkeys([*nodes, *_nodes_in(facts)]))
        there: list[TimelineEntry] = []
        if nodes:
            begin_ms = min((entry.at_ms for entry in here if entry.at_ms is not None), default=now_ms)
            wish = LogWish(any_of=(correlation_id, *job_ids[:_JOBS_MAX]), since_ms=begin_ms - _MARGIN_MS)
            there, more = await self._lines(nodes, wish)
            notes += more
        known = {job.job_id for job in jobs}
        return Timeline(
            job_ids=tuple(job_ids),
            correlation_id=correlation_id,
            entries=_in_order([*_entries_of(facts, known), *here, *there]),
            notes=tuple(notes),
        )

    async def _facts(self, jobs: Sequence[Job]) -> AsyncIterator[Event]:
        """Yield the facts about these jobs, looking only where in the log they can be."""
        wanted = {job.job_id for job in jobs}
        begin_ms, end_ms = self._span(jobs)
        after = await self._events.since(begin_ms)
        for _ in range(_PAGES_MAX):
            page = await self._events.read(after, _EVENTS_PER_PAGE)
            for entry in page:
                if not wanted.isdisjoint((entry.event.key, *entry.event.ids)):
                    yield entry.event
            if len(page) < _EVENTS_PER_PAGE or page[-1].event.at_ms > end_ms:
                return
            after = page[-1].id

    def _span(self, jobs: Sequence[Job]) -> tuple[int, int]:
        now_ms = self._clock.now_ms()
        begin_ms = min(job.spec.created_at for job in jobs)
        ended = [job.state.completed_at or now_ms if job.state.status in TERMINAL else now_ms for job in jobs]
        return begin_ms - _MARGIN_MS, max(ended) + _MARGIN_MS

    async def _lines(self, nodes: Iterable[NodeId], wish: LogWish) -> tuple[list[TimelineEntry], list[str]]:
        entries: list[TimelineEntry] = []
        notes: list[str] = []
        async with aclosing(read_all(self._desk, [Source(node_id) for node_id in nodes], wish)) as told:
            async for one in told:
                match one:
                    case Note(node_id=node_id, text=text):
                        notes.append(f"{node_id}: {text}")
                    case ToldLine(node_id=node_id, line=line):
                        entries.append(_entry_of(node_id, line))
                if len(entries) >= _LINES_MAX:
                    notes.append(f"of more than {_LINES_MAX} lines only the first are shown")
                    break
        return entries, notes


def _entry_of(node_id: NodeId, line: LogLine) -> TimelineEntry:
    fields = _fields(line.text)
    text = str(fields.get("event", line.text)) if fields else line.text
    return TimelineEntry(
        at_ms=line.at_ms,
        source=f"{node_id}/{line.log}",
        kind="line",
        text=text,
        level=line.level,
        seen=line.seen,
        data={key: value for key, value in fields.items() if key not in _SHOWN_APART} if fields else None,
    )


_SHOWN_APART = frozenset({"event", "timestamp", "level"})


def _fields(text: str) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(text) if text.startswith("{") else None
    except msgspec.DecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _entries_of(facts: Iterable[Event], job_ids: set[JobId]) -> Iterator[TimelineEntry]:
    """Tell of each fact what concerns these jobs: one entry of the log may speak of many."""
    for event in facts:
        ids = event.ids or (event.key,)
        for place, job_id in enumerate(ids):
            if job_id in job_ids:
                data = {"job_id": job_id} | {name: _own(value, place, len(ids)) for name, value in event.data.items()}
                yield TimelineEntry(at_ms=event.at_ms, source="events", kind="event", text=event.kind, data=data)


def _own(value: Any, place: int, count: int) -> Any:
    return value[place] if isinstance(value, list) and len(value) == count else value


def _nodes_in(facts: Iterable[Event]) -> list[NodeId]:
    workers = (str(event.data["worker_id"]) for event in facts if event.data.get("worker_id"))
    return list(dict.fromkeys(NodeId(worker.rpartition("-worker-")[0]) for worker in workers))


def _led_to(entries: Iterable[TimelineEntry]) -> tuple[list[str], list[NodeId]]:
    """Return the jobs and the nodes that the lines of control planes name."""
    job_ids: dict[str, None] = {}
    nodes: dict[NodeId, None] = {}
    for entry in entries:
        data = entry.data or {}
        job_ids |= dict.fromkeys(str(job_id) for job_id in data.get("job_ids", ()))
        if worker := str(data.get("worker") or ""):
            nodes[NodeId(worker.partition("/")[0])] = None
    return list(job_ids), list(nodes)


def _in_order(entries: Iterable[TimelineEntry]) -> tuple[TimelineEntry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.at_ms or 0))
