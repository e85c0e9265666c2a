"""The words in which the suite speaks of jobs and workers."""

from collections.abc import Sequence
from typing import Any

from muster.domain.capability import Capability
from muster.domain.job import (
    Hardware,
    Job,
    JobError,
    JobSpec,
    JobStatus,
    Requirements,
    Settlement,
    encode_result,
)
from muster.ids import JobId, SessionId, WorkerId
from muster.ports import Claimed
from muster.stores.memory import MemoryStore
from muster.stores.valkey import ValkeyStore

Store = MemoryStore | ValkeyStore

LEASE_S = 15.0
COMMANDS_ENDED_MAX = 20
SMALL = Capability(services=("llm",), models=("a", "b"), gpu_memory_gb=24, labels={"zone": "x"})
BIG = Capability(services=("llm",), models=("a", "b", "c"), gpu_memory_gb=80, labels={"zone": "x"})


def spec(job_id: str, **fields: Any) -> JobSpec:
    return JobSpec(job_id=JobId(job_id), **{"service_required": "llm"} | fields)


def needing(job_id: str, gb: float = 8, models: Sequence[str] = ("a",), **fields: Any) -> JobSpec:
    labels = fields.pop("labels", {})
    requirements = Requirements(models=tuple(models), hardware=Hardware(gpu_memory_gb=gb), labels=labels)
    return spec(job_id, requirements=requirements, **fields)


def completed(job_id: str, attempt: int = 1, result: Any = "ok") -> Settlement:
    result = encode_result(result)
    return Settlement(job_id=JobId(job_id), attempt=attempt, status=JobStatus.COMPLETED, result=result)


def failed(job_id: str, attempt: int = 1, code: str = "broken") -> Settlement:
    error = JobError(code=code, message=f"it was {code}", retriable=False)
    return Settlement(job_id=JobId(job_id), attempt=attempt, status=JobStatus.FAILED, error=error)


def again(
    job_id: str, attempt: int = 1, *, at_ms: int | None = None, avoid: str | None = None, counts: bool = True
) -> Settlement:
    return Settlement(
        job_id=JobId(job_id),
        attempt=attempt,
        status=JobStatus.PENDING,
        counts=counts,
        retry_at_ms=at_ms,
        avoid_worker=None if avoid is None else WorkerId(avoid),
        error=JobError(code="broken", message="it broke") if counts else None,
    )


class Hand:
    """A worker with a session."""

    def __init__(self, store: Store, name: str, capability: Capability = SMALL, session: str | None = None) -> None:
        self._store = store
        self.worker = WorkerId(f"{name}-worker-0")
        self.session = SessionId(session or f"session-{name}")
        self.capability = capability

    async def opens(self, capability: Capability | None = None) -> "Hand":
        self.capability = capability or self.capability
        await self._store.jobs.open_session(self.session, self.worker, self.capability, LEASE_S)
        return self

    async def claims(self, want: int = 10, *done: Settlement, idle: bool = False) -> Claimed:
        return await self._store.jobs.claim(self.session, self.worker, want, done, lease_s=LEASE_S, mark_idle=idle)

    async def gets(self, want: int = 10, *done: Settlement, idle: bool = False) -> list[str]:
        return [job.spec.job_id for job in (await self.claims(want, *done, idle=idle)).jobs]

    async def renews(self, *held: tuple[str, int], grace_s: float = 5.0) -> Any:
        pairs = [(JobId(job_id), attempt) for job_id, attempt in held]
        return await self._store.jobs.renew(self.session, pairs, lease_s=LEASE_S, grace_s=grace_s)


async def job(store: Store, job_id: str) -> Job:
    (found,) = await store.jobs.get([JobId(job_id)])
    assert found is not None
    return found


async def status(store: Store, job_id: str) -> JobStatus:
    return (await job(store, job_id)).state.status
