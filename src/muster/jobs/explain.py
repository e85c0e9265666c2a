"""Why a job waits, in a sentence, with the reasons for every class of workers."""

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from muster.domain.capability import Capability
from muster.domain.job import ACTIVE, TERMINAL, Job, JobState, JobStatus, Need
from muster.ids import JobId
from muster.jobs.matching import Mismatch, match

Classes = Sequence[tuple[str, Capability, int]]  # class id, what it can do, how many of its workers are online


class ClassVerdict(Struct, frozen=True, kw_only=True):
    """What one class of workers lacks for a job; without mismatches it can run it, if it has sessions."""

    class_id: str
    sessions: int
    mismatches: tuple[Mismatch, ...]


class Explanation(Struct, frozen=True, kw_only=True):
    """`can_run` names classes whether or not a worker is online; `candidates` are all classes, the nearest first."""

    job_id: JobId
    status: JobStatus
    summary: str
    position: int | None
    can_run: tuple[str, ...]
    candidates: tuple[ClassVerdict, ...]


def explain(job: Job, classes: Classes, position: int | None) -> Explanation:
    """`position` is how many pending jobs come before it; None when it does not wait."""
    customer = job.spec.customer_id
    verdicts = [
        ClassVerdict(class_id=class_id, sessions=sessions, mismatches=match(job.spec.need, capability, customer))
        for class_id, capability, sessions in classes
    ]
    verdicts.sort(key=lambda verdict: (len(verdict.mismatches), -verdict.sessions, verdict.class_id))
    return Explanation(
        job_id=job.job_id,
        status=job.state.status,
        summary=_summary(job.state, verdicts, position),
        position=position,
        can_run=tuple(verdict.class_id for verdict in verdicts if not verdict.mismatches),
        candidates=tuple(verdicts),
    )


def is_unworkable(need: Need, classes: Classes, customer: str | None = None) -> bool:
    return not any(sessions and not match(need, capability, customer) for _, capability, sessions in classes)


def _summary(state: JobState, verdicts: Sequence[ClassVerdict], position: int | None) -> str:
    if state.status in TERMINAL:
        return f"ended: {state.status}{_why(state)}"
    if state.status in ACTIVE:
        verb = "running on" if state.status is JobStatus.IN_PROGRESS else "given to"
        return f"{verb} {state.worker_id}, attempt {state.attempt}"
    if (blocked := _blocked(verdicts)) is not None:
        return blocked
    if state.next_attempt_at is not None:
        until = datetime.fromtimestamp(state.next_attempt_at / 1000, UTC).isoformat(timespec="seconds")
        return f"delayed until {until}, attempt {state.attempt} failed{_why(state)}"
    online = [verdict for verdict in verdicts if verdict.sessions]
    can = sum(not verdict.mismatches for verdict in online)
    before = "" if position is None else f"{_jobs(position)} before it, "
    return f"waits: {before}{can} of {_classes(len(online))} of workers can run it"


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
