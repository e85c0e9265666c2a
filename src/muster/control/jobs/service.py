"""Jobs between people, workers and the store: the store keeps and orders, jobs/ decides, this passes on."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import structlog
from msgspec import Struct

from muster.clock import Clock, Rng
from muster.control.jobs.figures import JobFigures
from muster.control.jobs.sessions import SessionClasses
from muster.control.jobs.wakeups import Wakeups
from muster.control.webhooks.of_jobs import JobAddresses
from muster.domain.job import (
    ACTIVE,
    TERMINAL,
    ClaimedJob,
    Job,
    JobError,
    JobSpec,
    JobState,
    JobStatus,
    Need,
    Requirements,
    Settlement,
)
from muster.domain.queue import ALL_SERVICES
from muster.domain.trace import About, SpanKind, Tracer
from muster.errors import Conflict, InvalidInput, JobNotFound, MusterError, StoreUnavailable
from muster.ids import JobId, WorkerId, check_name, new_id
from muster.jobs import explain as why
from muster.jobs import matching, retry, submission
from muster.jobs.order import PRIORITY_MAX
from muster.ports import Bus, CapabilityClass, JobIndex, JobLines, JobPage, JobQueue, JobUpkeep, Submitted
from muster.rounds import Rounds
from muster.wire import (
    ClaimReply,
    ClaimRequest,
    CloseSession,
    OpenSession,
    Outcome,
    OutcomeKind,
    ProgressReports,
    RenewReply,
    RenewRequest,
    SessionReply,
    encode,
)

log = structlog.get_logger()

WAKE_TOPIC = "wake"
PROGRESS_TOPIC = "progress"

_WAIT_S_MAX = 30.0
_LOOK_AGAIN_S = 5.0  # a lost wake-up costs at most this
_RENEWALS_PER_LEASE = 6
_UNHELD_GRACE_S = 5.0  # longer than a claim's reply is under way
_WANT_MAX = 1000
_UNTIMELY_S = 1.0  # until background work is tried again where people wait for answers
_CLASSES_FRESH_S = 1.0
_BUS_RETRY_S = 0.5

OnStop = Callable[[JobId, WorkerId], Awaitable[None]]
OnDone = Callable[[JobId, WorkerId, object], None]
CheckModels = Callable[[str | None, Sequence[str]], None]  # by the token that submits, and the models it names
PriorityMax = Callable[[str | None], int]  # by the token that submits
PayloadCheck = Callable[[Any], object]  # raises InvalidInput naming the field


_NO_CLASSES: tuple[float, list[CapabilityClass]] = (float("-inf"), [])  # when they were read, and which


class AttemptWatcher(Protocol):
    """Whoever is told of attempts that workers of this control plane begin and end."""

    def began(self, worker_id: WorkerId, jobs: Sequence[ClaimedJob]) -> None: ...
    def ended(self, attempts: Iterable[tuple[JobId, int]]) -> None: ...


class JobStores(Struct, frozen=True, kw_only=True):
    """The four faces of the one job store."""

    queue: JobQueue
    index: JobIndex
    upkeep: JobUpkeep
    lines: JobLines


class JobService:
    """A JobLink for workers, a Lifecycle, and what the API offers to people."""

    def __init__(
        self,
        stores: JobStores,
        bus: Bus,
        clock: Clock,
        rng: Rng,
        *,
        lease_s: float,
        retry_policy: retry.RetryPolicy,
        payload_bytes_max: int,
        payload_checks: Mapping[str, PayloadCheck],
        addresses: JobAddresses | None = None,
        result_bytes_max: int | None = None,
        may_begin: Callable[[WorkerId, ClaimedJob], bool] = lambda _, __: True,
        tracer: Tracer | None = None,
    ) -> None:
        self._queue = stores.queue
        self._index = stores.index
        self._upkeep = stores.upkeep
        self._lines = stores.lines
        self._bus = bus
        self._clock = clock
        self._rng = rng
        self._lease_s = lease_s
        self._policy = retry_policy
        self._payload_bytes_max = payload_bytes_max
        self._payload_checks = payload_checks
        self._addresses = addresses
        self._result_bytes_max = result_bytes_max
        self._may_begin = may_begin
        self._tracer = tracer
        self.figures = JobFigures()
        self._wakeups = Wakeups()
        self._sessions = SessionClasses(bus)
        self._sessions.on_change(self._wakeups.wake_session)
        self._classes = _NO_CLASSES
        self._rounds = Rounds()
        self._closing = False
        self._on_stop: list[OnStop] = []
        self._on_done: OnDone = lambda *_: None
        self._watcher: AttemptWatcher | None = None
        self._check_models: CheckModels = lambda *_: None
        self._priority_max: PriorityMax = lambda _: PRIORITY_MAX

    def on_stop(self, listener: OnStop) -> None:
        """Be told of each running job that ended otherwise than by its worker, and of who ran it."""
        self._on_stop.append(listener)

    def on_done(self, listener: OnDone) -> None:
        """Be told of each job that completed, who ran it, and its result."""
        self._on_done = listener

    def watch_attempts(self, watcher: AttemptWatcher) -> None:
        self._watcher = watcher

    def check_models_by(self, check: CheckModels) -> None:
        """Have it judged who may have jobs with which models; it raises for those who may not."""
        self._check_models = check

    def bound_priorities_by(self, priority_max: PriorityMax) -> None:
        """Let nobody's jobs have more than this; who asks for more has as much as is allowed."""
        self._priority_max = priority_max

    async def start(self) -> None:
        await self._sessions.start()
        self._rounds.go("wake_ups", self._listen, _BUS_RETRY_S)

    async def stop(self) -> None:
        """Let go of everybody who waits for work: they ask again, and find us gone or back."""
        self._closing = True
        self._wakeups.wake_all()
        await self._sessions.stop()
        await self._rounds.stop()

    @property
    def waiters(self) -> int:
        """How many claims wait for work."""
        return len(self._wakeups)

    # --- for people ---------------------------------------------------------------------------------------------------

    async def submit(self, specs: Sequence[JobSpec], *, of_model: str | None = None) -> list[Submitted]:
        """Check and store all or none; specs without an id get one. InvalidInput names the field.

        Raises Conflict where an idempotency key was given before with another request. With `of_model` it is this
        model that their token has to be allowed, not what they need of their worker.
        """
        complete = [self._complete(spec, of_model) for spec in specs]
        if self._addresses is not None:
            await self._addresses.expect(complete)
        try:
            submitted = await self._queue.submit(complete)
        except StoreUnavailable as error:
            # Nobody knows how many of them are stored; who has the ids can ask, or send the same again.
            error.data["job_ids"] = [spec.job_id for spec in complete]
            raise
        self.figures.submitted += sum(entry.created for entry in submitted)
        repeats = [
            spec for spec, entry in zip(complete, submitted, strict=True) if spec.idempotency and not entry.created
        ]
        if repeats:
            for spec, known in zip(repeats, await self._index.get([spec.job_id for spec in repeats]), strict=True):
                if known is not None and known.spec.idempotency not in (None, spec.idempotency):
                    raise Conflict(
                        f"the idempotency key was given before, for job {known.job_id}, with another request; "
                        "take a new key for a new job",
                        field="idempotency_key",
                        job_id=known.job_id,
                    )
        return submitted

    def check(self, spec: JobSpec) -> None:
        """Raise InvalidInput as `submit` would, and store nothing."""
        self._complete(spec)

    def _complete(self, spec: JobSpec, of_model: str | None = None) -> JobSpec:
        now_ms = self._clock.now_ms()
        job_id = spec.job_id or JobId(new_id("job", now_ms, self._rng))
        spec = msgspec.structs.replace(spec, job_id=job_id, created_at=now_ms, requirements=_with_payloads_model(spec))
        models = [*_payloads_model(spec), *spec.requirements.models] if of_model is None else [of_model]
        self._check_models(spec.submitted_by, models)
        submission.check(spec, payload_bytes=len(encode(spec.payload)), payload_bytes_max=self._payload_bytes_max)
        if spec.webhook_url is not None and self._addresses is None:
            raise InvalidInput("webhook_url cannot be told here: nothing sends webhooks", field="webhook_url")
        if self._addresses is not None:
            self._addresses.check(spec)
        if (check := self._payload_checks.get(spec.service_required.partition(":")[0])) is not None:
            check(spec.payload)
        return self._bounded(spec)

    def _bounded(self, spec: JobSpec) -> JobSpec:
        most = self._priority_max(spec.submitted_by)
        if max(spec.priority, spec.workflow_priority or 0) <= most:
            return spec
        of_workflow = None if spec.workflow_priority is None else min(spec.workflow_priority, most)
        return msgspec.structs.replace(spec, priority=min(spec.priority, most), workflow_priority=of_workflow)

    async def get(self, job_id: JobId) -> Job:
        (job,) = await self._index.get([job_id])
        if job is None:
            raise JobNotFound(f"no job {job_id!r}: it never was, or its time to be kept is over", field="job_id")
        (shown,) = await self.marked([job])
        return shown

    async def get_many(self, job_ids: Sequence[JobId]) -> list[Job]:
        return await self.marked([job for job in await self._index.get(job_ids) if job is not None])

    async def page(self, status: JobStatus | None, cursor: str | None, limit: int) -> JobPage:
        page = await self._index.page(status, cursor, limit)
        jobs = await self.marked(page.jobs)
        return JobPage(jobs=tuple(jobs), total=page.total, next_cursor=page.next_cursor)

    async def counts(self) -> dict[JobStatus, int]:
        return await self._index.counts()

    async def position(self, job_id: JobId) -> int | None:
        """Count the pending jobs before it; None when it does not wait."""
        return await self._index.position(job_id)

    async def waiting(self, need: Need) -> int:
        """Count the jobs in line with this very need."""
        return await self._index.waiting(need)

    async def cancel(self, job_id: JobId) -> Job:
        job = await self.end(job_id)
        if job.state.worker_id is not None:
            await self.stop_running(job_id, job.state.worker_id)
        return job

    async def end(self, job_id: JobId) -> Job:
        """Cancel a job, and let whoever runs it find out by itself."""
        return await self._index.cancel(job_id)

    async def stop_running(self, job_id: JobId, worker_id: WorkerId) -> None:
        """Have the worker stop now what no longer counts; it would learn it with its next renewal."""
        for listener in self._on_stop:
            try:
                await listener(job_id, worker_id)
            except MusterError as error:
                log.info("worker_not_told", job_id=job_id, worker_id=worker_id, error=error.message)

    async def retry(self, job_id: JobId) -> Job:
        return await self._index.revive(job_id)

    async def explain(self, job_id: JobId) -> why.Explanation:
        job = await self.get(job_id)
        classes = [(entry.class_id, entry.capability, entry.sessions) for entry in await self.classes()]
        return why.explain(job, classes, await self._index.position(job_id), await self._held(job))

    async def _held(self, job: Job) -> why.Held:
        """Find out what keeps a job from being claimed, besides workers."""
        spec = job.spec
        if job.state.status not in (JobStatus.PENDING, JobStatus.UNWORKABLE):
            return why.Held()
        if job.state.waiting_for:
            others = await self._index.get(spec.depends_on)
            unmet = [other.job_id for other in others if other is not None and other.state.status not in TERMINAL]
            return why.Held(waiting_for=tuple(dict.fromkeys(unmet)))
        paused = bool({spec.service_required, ALL_SERVICES} & await self._lines.paused())
        running_max = None
        if spec.customer_id is not None:
            figures = await self._lines.customer(spec.customer_id)
            most = figures.terms.running_max if figures.terms else None
            running_max = most if most is not None and figures.running >= most else None
        return why.Held(paused=paused, running_max=running_max)

    async def why_unworkable(self, spec: JobSpec) -> str | None:
        """Say why nobody who is there can run such a job, and what would help; None: somebody can."""
        (shown,) = await self.marked([Job(spec=spec, state=JobState())])
        return shown.state.reason

    async def classes(self) -> list[CapabilityClass]:
        at_s, classes = self._classes
        if self._clock.monotonic_s() - at_s > _CLASSES_FRESH_S:
            classes = await self._upkeep.classes()
            self._classes = (self._clock.monotonic_s(), classes)
        return classes

    async def marked(self, jobs: Sequence[Job]) -> list[Job]:
        """Show a job in line that nobody in the fleet can run as unworkable, with the reason."""
        if not any(job.state.status is JobStatus.PENDING for job in jobs):
            return list(jobs)
        classes = [(entry.class_id, entry.capability, entry.sessions) for entry in await self.classes()]
        reasons: dict[tuple[str, str | None], str | None] = {}  # by need and customer: many jobs share a few

        def shown(job: Job) -> Job:
            state = job.state
            if state.status is not JobStatus.PENDING or state.next_attempt_at is not None or state.waiting_for:
                return job
            kind = (matching.signature(job.spec.need), job.spec.customer_id)
            if kind not in reasons:
                reasons[kind] = why.why_unworkable(job, classes)
            reason = reasons[kind]
            return job if reason is None else Job(spec=job.spec, state=_unworkable(state, reason))

        return [shown(job) for job in jobs]

    # --- for workers --------------------------------------------------------------------------------------------------

    async def open_session(self, message: OpenSession) -> SessionReply:
        check_name(message.session_id, "session_id")
        if not message.worker_id.startswith(f"{message.node_id}-worker-"):
            raise InvalidInput(
                f"worker_id must be {message.node_id}-worker-N, got {message.worker_id!r}", field="worker_id"
            )
        await self._queue.open_session(message.session_id, message.worker_id, message.capability, self._lease_s)
        await self._sessions.opened(message.session_id, matching.class_id(message.capability))
        self._classes = _NO_CLASSES
        return SessionReply(
            lease_s=self._lease_s,
            renew_every_s=self._lease_s / _RENEWALS_PER_LEASE,
            result_bytes_max=self._result_bytes_max,
        )

    async def claim(self, message: ClaimRequest) -> ClaimReply:
        if not 0 <= message.want <= _WANT_MAX:
            raise InvalidInput(f"want must be 0 to {_WANT_MAX}, got {message.want}", field="want")
        wait_s = min(message.wait_s, _WAIT_S_MAX) if message.want else 0.0
        settlements = await self._settlements(message)
        deadline_s = self._clock.monotonic_s() + wait_s
        refused: tuple[JobId, ...] = ()
        passed_on = False
        while True:
            class_id = self._sessions.get(message.session_id)  # it may change while this waits
            woken = self._wakeups.register(class_id, message.session_id) if class_id is not None and wait_s else None
            try:
                claimed = await self._queue.claim(
                    message.session_id,
                    message.worker_id,
                    message.want,
                    settlements,
                    lease_s=self._lease_s,
                    mark_idle=woken is not None,
                )
                begun = await self._without_untimely(message.worker_id, claimed.jobs)
                if self._watcher is not None:
                    self._watcher.ended((settlement.job_id, settlement.attempt) for settlement in settlements)
                    self._watcher.began(message.worker_id, begun)
                now_s = self._clock.monotonic_s()
                self.figures.settled(settlements, claimed.refused, now_s)
                self._tell_done(message.worker_id, settlements, claimed.refused)
                self.figures.claimed(begun, self._clock.now_ms(), now_s)
                if self._tracer is not None:
                    self._trace_waits(self._tracer, begun)
                settlements = ()
                refused += claimed.refused
                left_s = deadline_s - self._clock.monotonic_s()
                if woken is None or claimed.jobs or not claimed.session_known or left_s <= 0 or self._closing:
                    if class_id is not None and claimed.jobs and (passed_on or (woken and woken.done())):
                        self._wakeups.wake(class_id)
                    return ClaimReply(jobs=begun, refused=refused, session_known=claimed.session_known)
                await asyncio.wait([woken], timeout=min(left_s, _LOOK_AGAIN_S))
                passed_on = woken.done()
            except asyncio.CancelledError:
                if woken is not None and class_id is not None and woken.done():
                    self._wakeups.wake(class_id)
                raise
            finally:
                if woken is not None and class_id is not None:
                    self._wakeups.forget(class_id, message.session_id, woken)

    def _tell_done(self, worker_id: WorkerId, settled: Sequence[Settlement], refused: Sequence[JobId]) -> None:
        for settlement in settled:
            if settlement.status is JobStatus.COMPLETED and settlement.job_id not in refused:
                self._on_done(settlement.job_id, worker_id, settlement.result)

    def _trace_waits(self, tracer: Tracer, jobs: Sequence[ClaimedJob]) -> None:
        for job in jobs:
            if job.spec.traceparent is not None:
                about: About = {"muster.job_id": job.spec.job_id, "muster.attempt": job.attempt}
                since_ms = job.spec.created_at if job.attempt == 1 else None  # later ones began at a retry
                tracer.begin("job.wait", SpanKind.INTERNAL, job.spec.traceparent, about, begun_ms=since_ms).end()

    async def _without_untimely(self, worker_id: WorkerId, jobs: tuple[ClaimedJob, ...]) -> tuple[ClaimedJob, ...]:
        """Put back for a moment what must not begin on this worker now; another one may take it meanwhile."""
        untimely = [job for job in jobs if not self._may_begin(worker_id, job)]
        if not untimely:
            return jobs
        again_ms = self._clock.now_ms() + round(_UNTIMELY_S * 1000)
        await self._queue.settle(
            [
                msgspec.structs.replace(
                    retry.settle_returned(job.spec.job_id, job.attempt), retry_at_ms=again_ms, avoid_worker=worker_id
                )
                for job in untimely
            ]
        )
        return tuple(job for job in jobs if job not in untimely)

    async def renew(self, message: RenewRequest) -> RenewReply:
        renewed = await self._queue.renew(
            message.session_id, message.held, lease_s=self._lease_s, grace_s=_UNHELD_GRACE_S
        )
        if renewed.returned:
            log.warning("unheld_jobs_returned", worker_id=message.worker_id, job_ids=renewed.returned)
        known = renewed.session_known and self._sessions.get(message.session_id) is not None
        return RenewReply(lost=renewed.lost, session_known=known)

    async def report_progress(self, message: ProgressReports) -> RenewReply:
        lost = await self._queue.record_progress(message.session_id, message.reports)
        if live := tuple(report for report in message.reports if report.job_id not in lost):
            await self._bus.publish(
                PROGRESS_TOPIC, encode(ProgressReports(session_id=message.session_id, reports=live))
            )
        return RenewReply(lost=tuple(lost))

    async def close_session(self, message: CloseSession) -> None:
        self._sessions.closed(message.session_id)
        await self._queue.close_session(message.session_id)
        self._classes = _NO_CLASSES

    async def _settlements(self, message: ClaimRequest) -> Sequence[Settlement]:
        """Successes need no look at the job; what becomes of a failure depends on its specification and retries."""
        done = [outcome for outcome in message.done if outcome.kind is OutcomeKind.COMPLETED]
        other = [outcome for outcome in message.done if outcome.kind is not OutcomeKind.COMPLETED]
        settlements = [retry.settle_success(outcome.job_id, outcome.attempt, outcome.result) for outcome in done]
        if other:
            jobs = await self._index.get([outcome.job_id for outcome in other])
            for outcome, job in zip(other, jobs, strict=True):
                settlements.append(self._settle_other(outcome, job, message))
        return settlements

    def _settle_other(self, outcome: Outcome, job: Job | None, message: ClaimRequest) -> Settlement:
        if job is None or job.state.status not in ACTIVE:
            # Too late to count; the store's fence refuses it and writes that down.
            return Settlement(job_id=outcome.job_id, attempt=outcome.attempt, status=JobStatus.FAILED)
        if outcome.kind is OutcomeKind.RETURNED:
            return retry.settle_returned(outcome.job_id, outcome.attempt)
        return retry.settle_failure(
            job.spec,
            outcome.attempt,
            job.state.retry_count,
            message.worker_id,
            outcome.error or JobError(code="unknown", message="the worker reported a failure without words"),
            self._policy,
            self._clock.now_ms(),
            self._rng,
        )

    async def _listen(self) -> None:
        self._wakeups.wake_all()  # what came while nobody listened was missed
        async for data in self._bus.subscribe(WAKE_TOPIC):
            self._wakeups.wake(data.decode())


def _with_payloads_model(spec: JobSpec) -> Requirements:
    """Require the model that the payload names: on a worker without it the job could only fail."""
    models = _payloads_model(spec)
    if not models or spec.requirements.models:
        return spec.requirements
    return msgspec.structs.replace(spec.requirements, models=models)


def _payloads_model(spec: JobSpec) -> tuple[str, ...]:
    model = spec.payload.get("model") if isinstance(spec.payload, Mapping) else None
    return (model,) if isinstance(model, str) and model else ()


def _unworkable(state: JobState, reason: str) -> JobState:
    return msgspec.structs.replace(state, status=JobStatus.UNWORKABLE, reason=reason)
