"""A worker: one session at the queue, and at most as many jobs at a time as it has slots."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import structlog

from muster.agent.backoff import Backoff
from muster.agent.jobs.attempt import TakeTurn, attempt_facts, no_turn, returned, run_attempt
from muster.agent.jobs.files import AttemptFiles, NoFiles
from muster.agent.jobs.ledger import Key, Ledger
from muster.agent.jobs.offer import Offer, Tool, choose_tool
from muster.agent.jobs.session import Session
from muster.agent.jobs.traced import traced
from muster.clock import Clock, Rng
from muster.domain.job import ClaimedJob, JobError, Progress
from muster.domain.trace import Tracer
from muster.domain.worker import Worker as WorkerRecord
from muster.domain.worker import WorkerStatus
from muster.errors import InvalidInput, MusterError, UpstreamFailed, UpstreamTimeout
from muster.ids import NodeId, worker_id
from muster.logs.own import Notes, OwnLog, speak_as
from muster.ports import FileLink, JobLink
from muster.wire import ClaimReply, Outcome, OutcomeKind

log = structlog.get_logger()

_BATCH_MAX = 256  # jobs asked for, and outcomes told, in one call
_BATCH_BYTES_MAX = 8 * 1024 * 1024
_CLAIM_WAIT_S = 20.0
_EARLY_S = 1.0  # an empty answer that comes sooner was no wait
_PROGRESS_EVERY_S = 0.25
_LAST_WORDS_S = 5.0  # each: for connectors to let go, for outcomes, for goodbye
_REFUSED = "result_refused"
_OF_SERVICES = frozenset({UpstreamFailed.code, UpstreamTimeout.code})


class Worker:
    """Claims, runs, renews, reports. It keeps its own slots whatever the control plane sends.

    `on_change` is called when the worker's record looks different, `on_doubt` with a service that failed a job.
    """

    def __init__(
        self,
        node_id: NodeId,
        index: int,
        jobs: JobLink,
        clock: Clock,
        rng: Rng,
        *,
        slots: int = 1,
        gpu_index: int | None = None,
        stop_timeout_s: float = 10.0,
        files: FileLink | None = None,
        tracer: Tracer | None = None,
        on_change: Callable[[], None] = lambda: None,
        on_doubt: Callable[[str], None] = lambda _: None,
        own_log: OwnLog | None = None,
        take_turn: TakeTurn = no_turn,
    ) -> None:
        self.worker_id = worker_id(node_id, index)
        self.gpu_index = gpu_index
        self._index = index
        self._clock = clock
        self._rng = rng
        self._stop_timeout_s = stop_timeout_s
        self._files = files or NoFiles()
        self._tracer = tracer
        self._on_change = on_change
        self._on_doubt = on_doubt
        self._own_log = own_log
        self._take_turn = take_turn
        self._notes = None if own_log is None else Notes(own_log, clock)
        self._session = Session(node_id, self.worker_id, slots, jobs, clock, rng)
        self._ledger = Ledger(slots)
        self._offer = Offer()
        self._held = False
        self._stopping = False
        self._stopped = False
        self._wake = asyncio.Event()
        self._tasks: dict[Key, asyncio.Task[Outcome]] = {}
        self._in_use: Counter[str] = Counter()
        self._progress: dict[Key, Progress] = {}
        self._progress_due = asyncio.Event()
        self._batch = _BATCH_MAX
        self._early = Backoff(base_s=0.1, max_s=2.0)
        self._early_answers = 0
        self._poll: asyncio.Task[None] | None = None
        self._calls: asyncio.Task[None] | None = None
        self._upkeep: list[asyncio.Task[None]] = []
        self._completed = 0
        self._failed = 0

    # --- what the agent asks of it -----------------------------------------------------------------------------------

    async def start(self) -> None:
        if self._calls is None and not self._stopping:
            if self._own_log is not None and self._notes is not None:
                speak_as(self._own_log)
                await self._notes.start()
            self._calls = self._spawn(self._make_calls)
            self._upkeep = [self._spawn(self._renew), self._spawn(self._report_progress)]

    async def stop(self) -> None:
        """Let running jobs end for `stop_timeout_s`, give the rest back, close the session."""
        if self._calls is None or self._stopping:
            return
        self._stopping = True
        self._changed()
        if self._poll is not None:
            self._poll.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=self._stop_timeout_s)
        self._cancel(list(self._tasks))
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=_LAST_WORDS_S)
        await asyncio.wait([self._calls], timeout=_LAST_WORDS_S)
        await self._say_goodbye()
        for task in (self._calls, *self._upkeep):
            task.cancel()
        await asyncio.gather(self._calls, *self._upkeep, return_exceptions=True)
        if self._notes is not None:
            await self._notes.stop()
        self._stopped = True
        self._changed()

    def offer(self, offer: Offer) -> None:
        """Take up what the worker can run from now on; a change of capability is told to the queue."""
        if offer.capability != self._offer.capability:
            self._session.due = True
        if offer != self._offer:
            self._offer = offer
            self._changed()

    def hold(self, *, held: bool) -> None:
        """Take no new jobs as long as it is held; what runs goes on."""
        if held is not self._held:
            self._held = held
            self._changed()

    def drop_job(self, job_id: str) -> bool:
        """Stop a job that was cancelled, rather than when the next renewal says so; tell whether it ran here."""
        keys = [key for key in self._tasks if key[0] == job_id]
        self._lose(keys)
        return bool(keys)

    def give_back(self) -> None:
        """Stop what runs and return it to the queue, where the attempt does not count."""
        self._cancel(list(self._tasks))

    def record(self) -> WorkerRecord:
        return WorkerRecord(
            worker_id=self.worker_id,
            index=self._index,
            status=self._status(),
            slots=self._ledger.slots,
            gpu_index=self.gpu_index,
            session_id=self._session.session_id,
            connectors=tuple(self._offer.statuses),
            connector_statuses=self._offer.statuses,
            current_jobs=self._ledger.running,
            jobs_completed=self._completed,
            jobs_failed=self._failed,
        )

    @property
    def refusal(self) -> str | None:
        """Why the control plane does not take this worker, in words."""
        return self._session.refusal

    def _status(self) -> WorkerStatus:
        if self._stopped:
            return WorkerStatus.STOPPED
        if self._held or self._stopping:
            return WorkerStatus.DRAINING
        if self._session.refusal is not None:
            return WorkerStatus.ERROR
        if not self._session.opened:
            return WorkerStatus.STARTING
        return WorkerStatus.BUSY if self._ledger.running else WorkerStatus.IDLE

    # --- calls to the queue ------------------------------------------------------------------------------------------

    async def _make_calls(self) -> None:
        """Do what is due, one call at a time; only waiting for jobs goes on beside the others."""
        while not (self._stopping and self._ledger.settled):
            if self._ledger.owes:
                await self._tell_outcomes()
            elif self._session.due and not self._stopping:
                await self._open_session()
            elif self._poll is None and self._wants:
                self._poll = self._spawn(self._wait_for_jobs)
                self._poll.add_done_callback(self._poll_ended)
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _open_session(self) -> None:
        try:
            await self._session.open(self._offer.capability)
        except MusterError as error:
            self._changed()
            await self._session.rest(error, "session")
        else:
            self._changed()

    async def _tell_outcomes(self) -> None:
        """Settle what is done and, unless a call waits for jobs already, ask for more in the same round trip.

        It never waits for jobs: its reply is the acknowledgement.
        """
        done = self._ledger.take(self._batch, _BATCH_BYTES_MAX)
        try:
            reply = await self._session.claim(self._wants if self._poll is None else 0, done)
            self._ledger.acknowledge(done)
            self._batch = _BATCH_MAX
            self._take_in(reply)
        except InvalidInput as error:
            self._ledger.put_back(done)
            self._single_out(done, error)
            await self._session.rest(error, "claim")
        except MusterError as error:
            await self._session.rest(error, "claim")
        finally:
            self._ledger.put_back(done)

    async def _wait_for_jobs(self) -> None:
        started_s = self._clock.monotonic_s()
        try:
            reply = await self._session.claim(self._wants, wait_s=_CLAIM_WAIT_S)
            self._take_in(reply)
            if reply.jobs or self._clock.monotonic_s() - started_s >= _EARLY_S:
                self._early_answers = 0
            else:  # the control plane would not wait: do not hammer it
                self._early_answers += 1
                await asyncio.sleep(self._early.delay_s(self._early_answers, self._rng))
        except MusterError as error:
            await self._session.rest(error, "claim")

    def _poll_ended(self, _: asyncio.Task[None]) -> None:
        self._poll = None
        self._wake.set()

    @property
    def _wants(self) -> int:
        return 0 if self._held or self._stopping else max(0, min(self._ledger.free, _BATCH_MAX))

    def _take_in(self, reply: ClaimReply) -> None:
        if reply.refused:
            log.warning("outcomes_came_too_late", worker_id=self.worker_id, job_ids=reply.refused)
        if reply.jobs:
            admission = self._ledger.admit(reply.jobs, accepting=not (self._held or self._stopping))
            self._cancel(admission.superseded)
            for job in admission.start:
                self._start_attempt(job)
        self._changed()

    def _single_out(self, done: tuple[Outcome, ...], error: InvalidInput) -> None:
        """Find the outcome that the control plane cannot take; a failure without a result takes its place."""
        if len(done) > 1:
            self._batch = len(done) // 2
            return
        (outcome,) = done
        log.error("outcome_refused", worker_id=self.worker_id, job_id=outcome.job_id, error=error.message)
        if outcome.error is not None and outcome.error.code == _REFUSED:
            self._ledger.amend(None, of=outcome)
            return
        told = JobError(code=_REFUSED, message=error.message, retriable=False)
        self._ledger.amend(
            Outcome(job_id=outcome.job_id, attempt=outcome.attempt, kind=OutcomeKind.FAILED, error=told), of=outcome
        )

    async def _say_goodbye(self) -> None:
        """Close the session; what could not be told before goes back to the queue by this, or when the lease ends."""
        if not self._session.opened:
            return
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._session.close()
        except (MusterError, TimeoutError) as error:
            log.warning("session_not_closed", worker_id=self.worker_id, owed=self._ledger.held(), error=str(error))

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _start_attempt(self, job: ClaimedJob) -> None:
        key = (job.spec.job_id, job.attempt)
        tool = choose_tool(self._offer, job.spec, self._in_use)
        if tool is not None:
            self._in_use[tool.key] += 1
        files = AttemptFiles(self._files, job)
        report = partial(self._note_progress, key)
        run = run_attempt(job, tool, report, files, self._session.result_bytes_max, self._take_turn)
        if self._tracer is not None or job.spec.traceparent is not None:
            run = traced(run, job, self._tracer, self.worker_id)
        self._tasks[key] = task = asyncio.create_task(run, name=f"{self.worker_id} {key[0]}")
        task.add_done_callback(partial(self._ended, key, job, tool, self._clock.monotonic_s()))
        self._note_progress(key, Progress())  # whatever its connector tells: a job that takes a while is seen to run

    def _ended(
        self, key: Key, job: ClaimedJob, tool: Tool | None, started_s: float, task: asyncio.Task[Outcome]
    ) -> None:
        outcome = returned(job) if task.cancelled() else task.result()
        if self._notes is not None:
            level = "info" if outcome.error is None else "warning"
            took_s = self._clock.monotonic_s() - started_s
            self._notes.add(level, "attempt_ended", partial(attempt_facts, job, tool, outcome, took_s))
        del self._tasks[key]
        self._progress.pop(key, None)
        if tool is not None:
            self._in_use[tool.key] -= 1
            if tool.service is not None and outcome.error is not None and outcome.error.code in _OF_SERVICES:
                self._on_doubt(tool.service.name)  # or it would be given more jobs to fail until the next look
        if self._ledger.finish(outcome):
            self._completed += outcome.kind is OutcomeKind.COMPLETED
            self._failed += outcome.kind is OutcomeKind.FAILED
        self._changed()

    def _cancel(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._tasks[key].cancel()

    def _lose(self, keys: list[Key]) -> None:
        if keys:
            log.info("jobs_lost", worker_id=self.worker_id, job_ids=[job_id for job_id, _ in keys])
            self._cancel(self._ledger.drop(keys))
            self._changed()

    def _note_progress(self, key: Key, progress: Progress) -> None:
        if key in self._tasks:
            self._progress[key] = progress
            self._progress_due.set()

    # --- upkeep ------------------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        """Go on even with no job at hand: only this gives back what was leased by a reply that never came."""
        while True:
            await asyncio.sleep(self._session.renew_every_s)
            if not self._session.opened:
                continue
            try:
                self._lose(await self._session.renew(self._ledger.held()))
            except MusterError as error:
                log.debug("renewal_failed", worker_id=self.worker_id, error=error.message)
            if self._session.due:
                self._wake.set()

    async def _report_progress(self) -> None:
        """Tell the newest of each job a few times a second; jobs that end before their first turn cost nothing."""
        while True:
            await self._progress_due.wait()
            await asyncio.sleep(_PROGRESS_EVERY_S)
            self._progress_due.clear()
            reports, self._progress = self._progress, {}
            if not reports:
                continue
            try:
                self._lose(await self._session.report_progress(reports))
            except MusterError as error:
                log.debug("progress_not_told", worker_id=self.worker_id, error=error.message)
                for key, progress in reports.items():
                    if key not in self._progress:
                        self._note_progress(key, progress)

    def _changed(self) -> None:
        self._wake.set()
        self._on_change()

    def _spawn(self, loop: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return asyncio.create_task(self._kept_up(loop), name=f"{self.worker_id} {loop.__name__}")

    async def _kept_up(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Start a loop anew that a fault of ours ended: a worker that looks alive must be."""
        failures = 0
        while True:
            try:
                return await loop()
            except Exception:
                failures += 1
                log.exception("worker_fault", worker_id=self.worker_id, loop=loop.__name__)
                await asyncio.sleep(self._early.delay_s(failures, self._rng))
