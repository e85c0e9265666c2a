"""Why a job waits, in a sentence, with the reasons for every class of workers."""

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from muster.domain.capability import Capability
from muster.domain.job import ACTIVE, TERMINAL, Job, JobSpec, JobState, JobStatus, Need
from muster.ids import JobId
from muster.jobs.matching import Mismatch, match

_NAMED_MAX = 5

Classes = Sequence[tuple[str, Capability, int]]  # class id, what it can do, how many of its workers are online


class ClassVerdict(Struct, frozen=True, kw_only=True):
    """What one class of workers lacks for a job; without mismatches it can run it, if it has sessions."""

    class_id: str
    sessions: int
    mismatches: tuple[Mismatch, ...]


class Explanation(Struct, frozen=True, kw_only=True):
    """`can_run` names classes whether or not a worker is online; `candidates` are all classes, the nearest first.

    `remedy` says what would make it run, where nobody can; `waiting_for` are jobs that have to end before.
    """

    job_id: JobId
    status: JobStatus
    summary: str
    position: int | None
    can_run: tuple[str, ...]
    candidates: tuple[ClassVerdict, ...]
    remedy: str | None = None
    waiting_for: tuple[JobId, ...] = ()


class Held(Struct, frozen=True, kw_only=True):
    """What else can keep a job from being claimed: jobs that have to end before, a pause, the customer's limit."""

    waiting_for: tuple[JobId, ...] = ()
    paused: bool = False
    running_max: int | None = None  # reached by its customer


def explain(job: Job, classes: Classes, position: int | None, held: Held = Held()) -> Explanation:  # noqa: B008 - frozen
    """`position` is how many pending jobs come before it; None when it does not wait."""
    verdicts = _verdicts(job, classes)
    waits = job.state.status not in TERMINAL | ACTIVE
    return Explanation(
        job_id=job.job_id,
        status=job.state.status,
        summary=_summary(job, verdicts, position, held),
        position=position,
        can_run=tuple(verdict.class_id for verdict in verdicts if not verdict.mismatches),
        candidates=tuple(verdicts),
        remedy=_remedy(job.spec, verdicts) if waits else None,
        waiting_for=held.waiting_for,
    )


def why_unworkable(job: Job, classes: Classes) -> str | None:
    """Say why nobody who is there can run it, and what would help; None: somebody can."""
    if not is_unworkable(job.spec.need, classes, job.spec.customer_id):
        return None
    verdicts = _verdicts(job, classes)
    return f"{_blocked(verdicts)}; {_remedy(job.spec, verdicts)}"


def _verdicts(job: Job, classes: Classes) -> list[ClassVerdict]:
    customer = job.spec.customer_id
    verdicts = [
        ClassVerdict(class_id=class_id, sessions=sessions, mismatches=match(job.spec.need, capability, customer))
        for class_id, capability, sessions in classes
    ]
    verdicts.sort(key=lambda verdict: (len(verdict.mismatches), -verdict.sessions, verdict.class_id))
    return verdicts


def is_unworkable(need: Need, classes: Classes, customer: str | None = None) -> bool:
    return not any(sessions and not match(need, capability, customer) for _, capability, sessions in classes)


def _summary(job: Job, verdicts: Sequence[ClassVerdict], position: int | None, held: Held) -> str:
    state = job.state
    if state.status in TERMINAL:
        return f"ended: {state.status}{_why(state)}"
    if state.status in ACTIVE:
        verb = "running on" if state.status is JobStatus.IN_PROGRESS else "given to"
        return f"{verb} {state.worker_id}, attempt {state.attempt}"
    if (blocked := _blocked(verdicts)) is not None:
        return blocked
    if (until := _held_up(job, held)) is not None:
        return until
    online = [verdict for verdict in verdicts if verdict.sessions]
    can = sum(not verdict.mismatches for verdict in online)
    before = "" if position is None else f"{_jobs(position)} before it, "
    return f"waits: {before}{can} of {_classes(len(online))} of workers can run it"


def _held_up(job: Job, held: Held) -> str | None:
    """Say what it waits for besides workers."""
    spec, state = job.spec, job.state
    if held.waiting_for:
        named = ", ".join(held.waiting_for[:_NAMED_MAX])
        more = "" if len(held.waiting_for) <= _NAMED_MAX else ", …"
        return f"waits for {_jobs(len(held.waiting_for))} to end: {named}{more}"
    if state.next_attempt_at is not None:
        until = datetime.fromtimestamp(state.next_attempt_at / 1000, UTC).isoformat(timespec="seconds")
        if not state.attempt:
            return f"waits for its time, {until}"
        return f"delayed until {until}, attempt {state.attempt} failed{_why(state)}"
    if held.paused:
        return f"the queue {spec.service_required} is paused; POST /api/queues/{spec.service_required}/resume"
    if held.running_max is not None:
        return f"waits until fewer than {_jobs(held.running_max)} of the customer {spec.customer_id} run (running_max)"
    return None


def _remedy(spec: JobSpec, verdicts: Sequence[ClassVerdict]) -> str | None:
    """Say what would make it run, where nobody who is there can."""
    if any(verdict.sessions and not verdict.mismatches for verdict in verdicts):
        return None
    able = [verdict for verdict in verdicts if not verdict.mismatches]
    if able:
        return f"it runs once a worker of {', '.join(verdict.class_id for verdict in able)} is back"
    if not verdicts:
        return f"it runs once there is a worker that offers the service {spec.service_required}"
    wanted = " and ".join(mismatch.remedy for mismatch in verdicts[0].mismatches)
    return f"it runs once a worker like those of {verdicts[0].class_id} can {wanted}"


def _blocked(verdicts: Sequence[ClassVerdict]) -> str | None:
    """Say why nobody can run it now; `verdicts` has the nearest first, those online before those that are not."""
    if not verdicts:
        return "nobody in the fleet can run it: no worker has been seen yet"
    nearest = verdicts[0]
    if nearest.mismatches:
        lacking = "; ".join(mismatch.text for mismatch in nearest.mismatches)
        return f"nobody in the fleet can run it, not even the nearest workers: {lacking}"
    if not nearest.sessions:
        able = ", ".join(verdict.class_id for verdict in verdicts if not verdict.mismatches)
        return f"can be run by {able}, but no such worker is online"
    return None


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count or 'no'} jobs"


def _classes(count: int) -> str:
    return "1 class" if count == 1 else f"{count} classes"


def _why(state: JobState) -> str:
    return f": {state.error.message}" if state.error else ""
