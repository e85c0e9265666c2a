"""The jobs of a campaign: drawn from its seed, each with the ends that it may come to."""

from random import Random
from typing import Any

from msgspec import Struct, field

BUSY = 0.5  # the share of the workers' time that all jobs together need
_RETRIES = 100  # a campaign takes many leases away, which counts: nothing may fail by that
_TEXT_CHARS_MAX = 2000
_LENGTHS = ((0.6, 0.05, 0.5), (0.9, 0.5, 2.0), (1.0, 2.0, 6.0))  # up to which draw, least, most; 1 is about the mean
_LENGTHS_MEAN = 0.94

COMPLETED = frozenset({"completed"})


class Order(Struct, frozen=True, kw_only=True):
    """What to submit; `result` is what a completed one must have, `cancel_after_s` when somebody changes his mind."""

    job_id: str
    body: dict[str, Any] = field(default_factory=dict)
    may_end: frozenset[str] = COMPLETED
    result: Any = None
    cancel_after_s: float | None = None


def draw(seed: int, jobs: int, *, worker_seconds: float) -> list[Order]:
    """Draw so many jobs that keep the workers busy for a part of the `worker_seconds` that they have."""
    rng = Random(f"{seed} orders")
    mean_ms = BUSY * worker_seconds / jobs * 1000
    return [_order(rng, f"campaign-{seed}-{number:06}", number, mean_ms) for number in range(jobs)]


def probe(name: str, labels: dict[str, str]) -> Order:
    """Make a job that is first in line, to see whether work gets done (by whom `labels` name)."""
    result = {"probe": name}
    payload = {"duration_ms": 10, "steps": 1, "result": result}
    return _make(name, payload, result=result, priority=100, requirements={"labels": labels})


def _order(rng: Random, job_id: str, number: int, mean_ms: float) -> Order:
    share, kind = rng.random(), rng.random()
    least, most = next((least, most) for upto, least, most in _LENGTHS if share <= upto)
    result = {"number": number, "text": "x" * rng.randrange(_TEXT_CHARS_MAX)}
    payload: dict[str, Any] = {
        "duration_ms": round(mean_ms / _LENGTHS_MEAN * rng.uniform(least, most)),
        "steps": rng.randint(1, 5),
        "result": result,
    }
    priority = rng.randint(0, 100)
    if kind < 0.80:
        return _make(job_id, payload, result=result, priority=priority)
    if kind < 0.90:  # fails now and then, and is tried again
        return _make(job_id, payload | {"fail_rate": 0.3}, result=result, priority=priority)
    if kind < 0.94:
        doomed = payload | {"error": {"code": "doomed", "message": "no use to try again", "retriable": False}}
        return _make(job_id, doomed, may_end=frozenset({"failed"}), priority=priority)
    if kind < 0.96:  # never done in time; where its lease is lost before, that was its only try
        late, ends = payload | {"duration_ms": 60_000}, frozenset({"timeout", "failed"})
        return _make(job_id, late, may_end=ends, priority=priority, timeout_s=1, max_retries=0)
    ends = COMPLETED | {"cancelled"}
    return _make(job_id, payload, may_end=ends, result=result, priority=priority, cancel_after_s=rng.uniform(0, 4))


def _make(
    job_id: str,
    payload: dict[str, Any],
    *,
    may_end: frozenset[str] = COMPLETED,
    result: Any = None,
    cancel_after_s: float | None = None,
    **fields: Any,
) -> Order:
    body = {"job_id": job_id, "service_required": "simulation", "payload": payload, "max_retries": _RETRIES} | fields
    return Order(job_id=job_id, body=body, may_end=may_end, result=result, cancel_after_s=cancel_after_s)
