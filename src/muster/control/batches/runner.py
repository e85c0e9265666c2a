"""All open batches, a few at a time, on the control plane that leads; its successor goes on where they were."""

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog
from msgspec.structs import replace

from muster.batches import lines
from muster.clock import Clock
from muster.control.batches.run import BatchRun, Surroundings, parts_of
from muster.control.batches.service import TOPIC, BatchRecords
from muster.control.files import FileService
from muster.control.jobs.service import JobService
from muster.domain.batch import BATCH_ENDED, Batch
from muster.domain.event import Event, LoggedEvent
from muster.domain.job import TERMINAL
from muster.errors import MusterError, ShuttingDown
from muster.ids import JobId
from muster.ports import Bus, EventLog
from muster.rounds import Rounds, wait_up_to

log = structlog.get_logger()

_AT_ONCE = 4
_TICK_S = 0.5
_RELOAD_S = 30.0  # a lost word on the bus costs at most this
_RETRY_S = 2.0
_PURGE_EVERY_S = 3600.0
_TAIL = 500
_ROOM_FRESH_S = 0.05
_ROOMS_MAX = 1000  # any line may name another model
_LINE_OVERHEAD_BYTES = 4096  # what a line has besides its body
_ENDS = {f"job_{status.value}": status.value == "completed" for status in TERMINAL}


class BatchRunner:
    """A Lifecycle."""

    def __init__(
        self,
        store: BatchRecords,
        events: EventLog,
        bus: Bus,
        jobs: JobService,
        files: FileService,
        clock: Clock,
        *,
        room: Callable[[str, str], int],
        check: lines.CheckPayload,
        payload_bytes_max: int,
        retention_s: float,
        leads: Callable[[], bool],
    ) -> None:
        """`room` says how many requests of batches may run at a time, of a model and what it is to do."""
        self._store = store
        self._events = events
        self._bus = bus
        self._files = files
        self._room = room
        self._clock = clock
        self._retention_ms = round(retention_s * 1000)
        self._leads = leads
        self._around = Surroundings(
            jobs=jobs,
            files=files,
            clock=clock,
            room=self._has_room,
            save=self._save,
            save_file=store.save_file,
            check=check,
            line_bytes_max=payload_bytes_max + _LINE_OVERHEAD_BYTES,
        )
        self._runs: dict[str, tuple[BatchRun, asyncio.Task[None]]] = {}
        self._rooms: dict[tuple[str, str], tuple[float, int]] = {}  # when it was looked at, and what there was
        self._news = asyncio.Event()
        self._reload_at_s = self._purge_at_s = float("-inf")
        self._rounds = Rounds()

    async def start(self) -> None:
        self._rounds.go("batches_news", self._listen, _TICK_S)
        self._rounds.go("batches_jobs", self._hear_of_jobs, _TICK_S)
        self._rounds.go("batches", self._lead, _TICK_S)

    async def stop(self) -> None:
        await self._rounds.stop()

    @property
    def open_jobs(self) -> int:
        return sum(len(run.open) for run, _ in self._runs.values())

    async def _listen(self) -> None:
        async for _ in self._bus.subscribe(TOPIC, self._news.set):
            self._news.set()

    # --- as long as we lead ------------------------------------------------------------------------------------------

    async def _lead(self) -> None:
        self._reload_at_s = float("-inf")
        try:
            while self._leads():
                if self._news.is_set() or self._clock.monotonic_s() >= self._reload_at_s:
                    await self._reload()
                await wait_up_to(self._news, _TICK_S)
        finally:
            running = [task for _, task in self._runs.values()]
            self._runs = {}
            for task in running:
                task.cancel()
            self._rooms = {}
            await asyncio.gather(*running, return_exceptions=True)

    async def _reload(self) -> None:
        """Begin with the oldest ones that are open, and tell those that run when they are to be cancelled."""
        self._news.clear()
        self._reload_at_s = self._clock.monotonic_s() + _RELOAD_S
        batches = await self._store.batches()
        cancels = await self._store.cancels()
        for batch in batches:
            if batch.status in BATCH_ENDED and not batch.told:
                await self._tell_end(batch)
            elif batch.status not in BATCH_ENDED and batch.batch_id not in self._runs and len(self._runs) < _AT_ONCE:
                self._begin(batch)
        for batch_id, at_ms in cancels.items():
            if batch_id in self._runs:
                self._runs[batch_id][0].ask_cancel(at_ms)
        if self._clock.monotonic_s() >= self._purge_at_s:
            self._purge_at_s = self._clock.monotonic_s() + _PURGE_EVERY_S
            await self._purge(batches)

    def _begin(self, batch: Batch) -> None:
        run = BatchRun(batch, self._around)
        task = asyncio.create_task(self._carry_through(run), name=batch.batch_id)
        self._runs[batch.batch_id] = (run, task)

    async def _carry_through(self, run: BatchRun) -> None:
        batch_id = run.batch.batch_id
        try:
            await self._run_or_give_up(run)
            await self._tell_end(run.batch)
        except MusterError as error:
            log.warning("batch_interrupted", batch_id=batch_id, error=error.message, retry_in_s=_RETRY_S)
            await asyncio.sleep(_RETRY_S)
        except Exception:
            log.exception("batch_broke", batch_id=batch_id)
            await asyncio.sleep(_RETRY_S)
        if batch_id in self._runs and self._runs[batch_id][0] is run:
            del self._runs[batch_id]
            self._news.set()  # there is room for another one, or for this one again

    @staticmethod
    async def _run_or_give_up(run: BatchRun) -> None:
        try:
            await run.run()
        except MusterError as error:
            if error.retriable:
                raise
            log.warning("batch_given_up", batch_id=run.batch.batch_id, error=error.message)
            await run.give_up(error)

    async def _save(self, batch: Batch) -> None:
        if not self._leads():
            raise ShuttingDown("another control plane leads by now")
        await self._store.save(batch)

    async def _tell_end(self, batch: Batch) -> None:
        counts = {"total": batch.total, "completed": batch.completed, "failed": batch.failed}
        data = {
            "endpoint": batch.endpoint,
            "request_counts": counts,
            "output_file_id": batch.output_file_id,
            "error_file_id": batch.error_file_id,
        }
        kind = f"batch_{batch.status.value}"
        await self._events.append([Event(kind=kind, key=batch.batch_id, at_ms=self._clock.now_ms(), data=data)])
        await self._save(replace(batch, told=True))

    async def _purge(self, batches: list[Batch]) -> None:
        before_ms = self._clock.now_ms() - self._retention_ms
        read = {batch.input_file_id for batch in batches if batch.status not in BATCH_ENDED}
        for file in await self._store.files():
            if file.created_at_ms < before_ms and file.file_id not in read:
                await self._store.remove_file(file.file_id)
                await self._files.forget(file.place[0])
        for batch in batches:
            if batch.status in BATCH_ENDED and batch.created_at_ms < before_ms:
                await self._store.remove(batch.batch_id)
                await self._files.forget(parts_of(batch))

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _has_room(self, model: str, capability: str) -> bool:
        """Look at the fleet some times a second; who comes meanwhile waits for one request at most all the same."""
        now_s = asyncio.get_running_loop().time()
        looked_s, room = self._rooms.get((model, capability), (float("-inf"), 0))
        if now_s - looked_s > _ROOM_FRESH_S:
            room = self._room(model, capability)
            if len(self._rooms) >= _ROOMS_MAX:
                self._rooms.clear()
            self._rooms[model, capability] = (now_s, room)
        running = Counter(of for run, _ in self._runs.values() for of in run.open.values())
        return running[model] < room

    async def _hear_of_jobs(self) -> None:
        """Hear at once of each job that ends; what is missed is found by looking at the jobs now and then."""
        position = await self._events.newest_id()
        while True:
            if not self._runs:
                position = await self._events.newest_id()
                await asyncio.sleep(_TICK_S)
                continue
            for entry in await self._events.read(position, _TAIL, wait_s=_TICK_S):
                position = entry.id
                self._take_in(entry)

    def _take_in(self, entry: LoggedEvent) -> None:
        completed = _ENDS.get(entry.event.kind)
        if completed is None:
            return
        for job_id in entry.event.ids or (entry.event.key,):
            batch_id = lines.batch_of(job_id)
            if batch_id in self._runs:
                self._runs[batch_id][0].job_ended(JobId(job_id), completed=completed)
