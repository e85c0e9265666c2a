"""Live events for many readers from one tail of the durable log.

The log says *what* changed; a reader of the monitor gets the changed thing's whole current state, joined over a short
while and framed once for all. So a delta applied twice is harmless, bursts coalesce by themselves, and a reader that
comes back with an id gets the present state of whatever changed since, or a snapshot when the ring no longer knows.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any, Protocol
from zlib import crc32

import structlog
from msgspec import Struct, structs

from muster.clock import Clock
from muster.domain.event import LoggedEvent
from muster.errors import JobNotFound, MusterError
from muster.events.followers import Change, FollowedJob, Followers, FollowLimits
from muster.events.reader import Reader, WriteNow
from muster.events.selection import Concerns, PlacedJob, Selection, Wish
from muster.events.startup import startup_message, tells_startup
from muster.events.turns import Told, Turns
from muster.ids import JobId, NodeId
from muster.ports import Bus, EventLog
from muster.rounds import Rounds
from muster.sse import KEEP_ALIVE, frame
from muster.wire import ProgressReport, ProgressReports, decode

log = structlog.get_logger()

_NO_NODES = ("batch_", "webhook_", "workflow_")  # what their events are about is not in the picture


class ShownJob(PlacedJob, Protocol):
    """A job as people see it; frames carry it whole."""


class ShownJobs(Protocol):
    @property
    def active(self) -> Sequence[PlacedJob]: ...


class Snapshot(Protocol):
    """`lines` are there where the selection asks for them."""

    @property
    def jobs(self) -> ShownJobs: ...
    @property
    def lines(self) -> Any: ...


class SignOfLife(Protocol):
    """Framed as it is, its type included."""

    @property
    def machine_id(self) -> str: ...


class MachineLine(Protocol):
    @property
    def machine_id(self) -> str: ...


class ShownMachine(Protocol):
    @property
    def machine(self) -> Any: ...
    @property
    def workers(self) -> Sequence[Any]: ...


class Scenery(Protocol):
    """What the hub shows; the API's views implement it."""

    def machine(self, node_id: NodeId) -> ShownMachine | None: ...
    async def jobs(self, job_ids: Sequence[JobId]) -> Sequence[ShownJob]: ...
    async def whole_jobs(self, job_ids: Sequence[JobId]) -> Sequence[FollowedJob]: ...
    async def stats(self) -> Any: ...
    async def snapshot(self, selection: Selection | None) -> Snapshot: ...
    def size(self) -> int: ...
    def lines(self) -> Sequence[MachineLine]: ...
    def signs_of_life(self) -> Sequence[SignOfLife]: ...


class HubLimits(Struct, frozen=True, kw_only=True):
    join_s: float = 0.01
    readers_per_turn: int = 400  # 40,000 a second: what half a core may do
    stats_every_s: float = 2.0
    signs_every_s: float = 15.0
    lines_every_s: float = 0.5
    keep_alive_s: float = 15.0
    ring_entries: int = 10_000
    tail_batch: int = 2_000
    dirty_jobs_max: int = 2_000
    jobs_per_flush: int = 200
    reader_bytes_max: int = 1_048_576
    retry_s: float = 0.5
    recheck_s: float = 60.0

    @property
    def of_followers(self) -> FollowLimits:
        return FollowLimits(keep_alive_s=self.keep_alive_s, recheck_s=self.recheck_s, retry_s=self.retry_s)


class Hub:
    """A Lifecycle."""

    def __init__(
        self, events: EventLog, bus: Bus, scenery: Scenery, clock: Clock, limits: HubLimits, *, progress_topic: str
    ) -> None:
        self._log = events
        self._bus = bus
        self._scenery = scenery
        self._clock = clock
        self._limits = limits
        self._progress_topic = progress_topic
        self._ring: deque[LoggedEvent] = deque(maxlen=limits.ring_entries)
        self._newest = "0"
        self._monitors = Turns(limits.readers_per_turn)
        self._facts: set[Reader] = set()
        self.followers = Followers(scenery, clock, limits.of_followers)
        self._dirty_nodes: set[NodeId] = set()
        self._dirty_jobs: dict[JobId, None] = {}
        self._progress: dict[JobId, ProgressReport] = {}
        self._startups: list[LoggedEvent] = []  # of machines that come up; to be told
        self._lines: dict[str, MachineLine | None] = {}
        self._on_facts: list[Callable[[Sequence[LoggedEvent]], None]] = []
        self._rounds = Rounds()
        self.gaps = 0  # times that a monitor lost something

    async def start(self) -> None:
        if not self._rounds:
            self._newest = await self._log.newest_id()
            loops: dict[str, Callable[[], Awaitable[None]]] = {
                "event_tail": self._tail,
                "event_turns": self._tell_often,
                "event_stats": self._stats_often,
                "event_lines": self._tell_lines_often,
                "event_progress": self._follow_progress,
            }
            for name, run in loops.items():
                self._rounds.go(name, partial(self._noting_all, run), self._limits.retry_s)

    async def stop(self) -> None:
        await self._rounds.stop()
        for reader in {*self._monitors, *self._facts}:
            reader.close()
        self.followers.close()

    def nodes_changed(self, node_ids: Iterable[NodeId]) -> None:
        """Telemetry of nodes is not in the log: the fleet says so directly."""
        if self._monitors:
            self._dirty_nodes.update(node_ids)

    def on_facts(self, listener: Callable[[Sequence[LoggedEvent]], None]) -> None:
        """Be given what is new in the log; after a burst that nobody could look at, without what was in it."""
        self._on_facts.append(listener)

    @property
    def readers(self) -> int:
        return len(self._monitors) + len(self._facts) + len(self.followers)

    # --- readers ------------------------------------------------------------------------------------------------------

    async def monitor(
        self, last_event_id: str | None, wish: Wish, write_now: WriteNow | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield frames for a monitor: `connected`, a snapshot or what changed since, then deltas for ever.

        Deltas that `write_now` takes between two frames are not yielded.
        """
        selection = wish.selection(self._scenery.size())
        reader = Reader(self._limits.reader_bytes_max, selection, write_now)
        with self._monitors.reader(reader):
            yield frame({"type": "connected", "timestamp": self._clock.now_ms()})
            # Which jobs were on the selected machines is not remembered for those who went.
            missed = self._since(last_event_id) if last_event_id and selection is None else None
            if missed is None:
                yield await self._snapshot_frame(selection)
            else:
                self._note(missed)
                for entry in filter(tells_startup, missed):
                    if entry not in self._startups:  # those are about to be told to all
                        yield frame(startup_message(entry.event))
            async for joined, gap in self._frames_of(reader):
                if gap is not None:
                    self.gaps += 1
                    yield frame({"type": "resync", "reason": gap, "timestamp": self._clock.now_ms()})
                    yield await self._snapshot_frame(selection)
                yield joined

    async def facts(self, after: str | None) -> AsyncIterator[bytes]:
        """Yield the log itself from `after` on (default: from now), each entry a frame with its id."""
        reader = Reader(self._limits.reader_bytes_max)
        at = self._newest if after is None else after
        self._facts.add(reader)
        try:
            while True:
                # The reader's line only wakes us; the log itself is read, so nothing is lost however slow we are.
                while entries := await self._log.read(at, self._limits.tail_batch):
                    at = entries[-1].id
                    yield b"".join(frame(fact_view(entry), entry.id) for entry in entries)
                joined, _ = await reader.take(self._limits.keep_alive_s)
                if reader.closed:
                    return
                if not joined:
                    yield KEEP_ALIVE
        finally:
            self._facts.discard(reader)

    async def job(self, job_id: JobId, last_event_id: str | None = None) -> AsyncIterator[bytes]:
        """Yield one job's states and its progress; ends after its one end.

        `last_event_id` is the version of the job that the reader knows: it is not told again.
        """
        with self.followers.follower() as follower:
            follower.follow(job_id, last_event_id)
            async for changes in self.followers.changes(follower):
                yield b"".join(map(_job_frame, changes)) or KEEP_ALIVE
                if job_id not in follower:
                    return

    async def touches(self, job_id: JobId) -> AsyncIterator[bool]:
        """Yield True whenever something about the job may have changed, False after a while of silence.

        What changed is read elsewhere: so nothing is lost, however slow the follower.
        """
        with self.followers.follower() as follower:
            follower.follow(job_id)
            while not follower.closed:
                await follower.changed(self._limits.keep_alive_s)
                yield follower.take_touched() or follower.closed

    async def _frames_of(self, reader: Reader) -> AsyncIterator[tuple[bytes, str | None]]:
        while True:
            joined, gap = await reader.take(self._limits.keep_alive_s)
            if joined or gap is not None:
                yield joined, gap
            elif not reader.closed:
                yield KEEP_ALIVE, None
            if reader.closed:
                return

    def _since(self, last_event_id: str) -> list[LoggedEvent] | None:
        """Return what came after that id, or None when the ring does not reach back so far."""
        if last_event_id == self._newest:
            return []
        entries = list(self._ring)
        for position in range(len(entries) - 1, -1, -1):
            if entries[position].id == last_event_id:
                return entries[position + 1 :]
        return None

    # --- the loops ----------------------------------------------------------------------------------------------------

    async def _noting_all(self, run: Callable[[], Awaitable[None]]) -> None:
        """Have all followers look for themselves when a loop has ended: something may not have been told."""
        try:
            await run()
        finally:
            self.followers.note_all()

    async def _tail(self) -> None:
        behind = 0
        while True:
            entries = await self._log.read(self._newest, self._limits.tail_batch, wait_s=5.0)
            behind = behind + 1 if len(entries) == self._limits.tail_batch else 0
            if behind > 3:  # noqa: PLR2004 - several full batches in a row: a burst that nobody could look at
                self._newest = await self._log.newest_id()
                self._ring.clear()
                self._lose("too many events at once")
                self.followers.note_all()
                behind = 0
                continue
            if entries:
                self._newest = entries[-1].id
                self._ring.extend(entries)
                self._note_new(entries)
                for listener in self._on_facts:
                    listener(entries)
                for reader in self._facts:
                    reader.push(b"\n")
                for entry in entries:
                    self.followers.note(entry.event.ids or (entry.event.key,))

    async def _tell_often(self) -> None:
        """Frame what changed right before each turn, at an even pace but never without a pause for others."""
        due_s, join_s = self._clock.monotonic_s(), self._limits.join_s
        while True:
            now_s = self._clock.monotonic_s()
            due_s = min(max(due_s, now_s - join_s * 3 / 4), now_s) + join_s
            await asyncio.sleep(due_s - now_s)
            if self._dirty_nodes or self._dirty_jobs or self._progress or self._startups:
                await self._flush()
            self._monitors.turn()

    async def _stats_often(self) -> None:
        for turn in count():
            await asyncio.sleep(self._limits.stats_every_s)
            if self._monitors:
                self._monitors.tell([Told(frame({"type": "system_stats", "data": await self._scenery.stats()}))])
                self._tell_signs_of_life(turn)

    def _tell_signs_of_life(self, turn: int) -> None:
        """Tell of a part of the machines with each turn: many at once would not fit into the readers' lines."""
        turns = max(1, int(self._limits.signs_every_s / self._limits.stats_every_s))
        self._monitors.tell(
            [
                Told(frame(sign), partial(Selection.has_machine, machine_id=sign.machine_id))
                for sign in self._scenery.signs_of_life()
                if crc32(sign.machine_id.encode()) % turns == turn % turns
            ]
        )

    async def _tell_lines_often(self) -> None:
        while True:
            await asyncio.sleep(self._limits.lines_every_s)
            if any(reader.selection and reader.selection.lines for reader in self._monitors):
                self._tell_lines()

    def _tell_lines(self) -> None:
        """Tell what differs from what was told last. Who came in between has it already, which does no harm."""
        now = {line.machine_id: line for line in self._scenery.lines()}
        changed = [line for machine_id, line in now.items() if self._lines.get(machine_id) != line]
        removed = sorted(self._lines.keys() - now.keys())
        self._lines = {**now}
        if changed or removed:
            body = frame({"type": "machine_lines", "lines": changed, "removed": removed})
            self._monitors.tell([Told(body, Selection.has_lines, to_choosers_only=True)])

    async def _follow_progress(self) -> None:
        async for data in self._bus.subscribe(self._progress_topic):
            for report in decode(data, ProgressReports).reports:
                if self._monitors or self.followers.follows(report.job_id):
                    self._progress[report.job_id] = report

    # --- from entries to frames ---------------------------------------------------------------------------------------

    def _note_new(self, entries: Sequence[LoggedEvent]) -> None:
        self._note(entries)
        if self._monitors:
            self._startups += filter(tells_startup, entries)

    def _note(self, entries: Iterable[LoggedEvent]) -> None:
        if not self._monitors:
            return
        for entry in entries:
            if entry.event.kind.startswith("job_"):
                self._dirty_jobs.update(dict.fromkeys(map(JobId, entry.event.ids or (entry.event.key,))))
            elif not entry.event.kind.startswith(_NO_NODES):
                self._dirty_nodes.add(NodeId(entry.event.key))
        if len(self._dirty_jobs) > self._limits.dirty_jobs_max:
            self._lose("too many jobs changed at once")

    def _lose(self, why: str) -> None:
        self._dirty_jobs.clear()
        self._dirty_nodes.clear()
        self._startups.clear()
        self._monitors.lose(why)

    async def _flush(self) -> None:
        """Frame what changed since the last look. Only the last frame of a complete flush carries the log's id."""
        newest, startups = self._newest, list(self._startups)
        jobs = list(self._dirty_jobs)[: self._limits.jobs_per_flush]
        for job_id in jobs:
            del self._dirty_jobs[job_id]
        complete = not self._dirty_jobs
        shown_jobs = await self._jobs_now(jobs) if jobs and self._monitors else ()
        nodes, self._dirty_nodes = self._dirty_nodes, set()
        progress, self._progress = self._progress, {}
        del self._startups[: len(startups)]
        frames: list[tuple[Concerns, Any]] = []
        for node_id in sorted(nodes):
            body = _machine_body(node_id, self._scenery.machine(node_id))
            frames.append((partial(Selection.has_machine, machine_id=node_id), body))
        for entry in startups:
            about = partial(Selection.has_machine, machine_id=entry.event.key)
            frames.append((about, startup_message(entry.event)))
        frames += [(partial(Selection.has_job, job=job), {"type": "job_update", "job": job}) for job in shown_jobs]
        for job_id, report in progress.items():
            self.followers.note_progress(report)
            without_text = structs.asdict(structs.replace(report.progress, text=None, text_at=0))
            body = {"type": "job_progress", "job_id": job_id, "progress": without_text}
            frames.append((partial(Selection.has_progress, job_id=job_id), body))
        last = len(frames) if complete else None
        self._monitors.tell(
            [
                Told(frame(body, newest if position == last else None), concerns)
                for position, (concerns, body) in enumerate(frames, start=1)
            ]
        )

    async def _jobs_now(self, job_ids: Sequence[JobId]) -> Sequence[ShownJob]:
        try:
            return await self._scenery.jobs(job_ids)
        except MusterError:
            self._dirty_jobs = dict.fromkeys(job_ids) | self._dirty_jobs  # told when the store is back
            raise

    async def _snapshot_frame(self, selection: Selection | None) -> bytes:
        at = self._newest  # read before the state: what changes meanwhile comes again as a delta
        data = await self._scenery.snapshot(selection)
        if selection is not None:
            selection.shown(data.jobs.active)
            if selection.lines:
                self._lines = dict.fromkeys(line.machine_id for line in data.lines) | self._lines
        return frame({"type": "full_state_snapshot", "data": data, "timestamp": self._clock.now_ms()}, at)


def fact_view(entry: LoggedEvent) -> dict[str, Any]:
    event = entry.event
    return {
        "id": entry.id,
        "kind": event.kind,
        "key": event.key,
        "at_ms": event.at_ms,
        "data": event.data,
        "ids": event.ids,
    }


def _job_frame(change: Change) -> bytes:
    if change.job is not None:
        return frame({"type": "job_update", "job": change.job}, change.job.version)
    if change.progress is not None:
        progress = structs.asdict(change.progress)
        return frame({"type": "job_progress", "job_id": change.job_id, "progress": progress})
    gone = JobNotFound(f"{change.job_id} is not there any more: its time to be kept is over", field="job_id")
    return frame({"type": "error", "job_id": change.job_id, **gone.to_dict()})


def _machine_body(node_id: NodeId, shown: ShownMachine | None) -> dict[str, Any]:
    if shown is None:
        return {"type": "machine_removed", "machine_id": node_id}
    return {"type": "machine_update", "machine": shown.machine, "workers": shown.workers}
