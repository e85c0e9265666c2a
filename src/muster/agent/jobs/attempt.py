"""One attempt at one job: a connector runs it, and whatever happens becomes an outcome."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import structlog
from msgspec import Raw

from muster.agent.jobs.offer import Tool
from muster.domain.job import ClaimedJob, JobError, ResultFile, encode_result
from muster.domain.service import Service
from muster.errors import MusterError, PayloadTooLarge, ResultTooLarge
from muster.jobs.retry import TIMED_OUT
from muster.logs.own import speak_about
from muster.ports import JobFiles, ReportProgress
from muster.wire import Outcome, OutcomeKind

log = structlog.get_logger()

_MESSAGE_CHARS_MAX = 2000
_RESULT_NAME = "whole-result.json"  # not what a connector would call a file of its own


TakeTurn = Callable[[Service | None, ClaimedJob, ReportProgress], AbstractAsyncContextManager[Service | None]]


def no_turn(service: Service | None, _: ClaimedJob, __: ReportProgress) -> AbstractAsyncContextManager[Service | None]:
    """Begin at once: nobody else uses what the job needs."""
    return nullcontext(service)


async def run_attempt(
    job: ClaimedJob,
    tool: Tool | None,
    report: ReportProgress,
    files: JobFiles,
    result_bytes_max: int,
    take_turn: TakeTurn = no_turn,
) -> Outcome:
    """Raise nothing but the cancellation of the task.

    Time is counted here: the lease's deadline is by the store's clock, which may differ from ours.
    """
    speak_about(job_id=job.spec.job_id, correlation_id=job.spec.correlation_id or job.spec.job_id)
    if tool is None:
        required = job.spec.service_required
        return _failed(job, "service_unavailable", f"no service for {required} runs here any more")
    try:
        async with asyncio.timeout(job.spec.timeout_s) as deadline:
            async with take_turn(tool.service, job, report) as service:
                result = encode_result(await tool.connector.run(job, service, report, files))
            if len(result) > result_bytes_max:
                result = await _in_a_file(result, files, result_bytes_max)
    except MusterError as error:
        return _failed(job, error.code, error.message, retriable=error.retriable, retry_after_s=error.retry_after_s)
    except asyncio.CancelledError:
        if _is_cancelled():
            raise
        return _failed(job, "connector_error", "the connector gave up without saying why")
    except Exception as error:
        if isinstance(error, TimeoutError) and deadline.expired():
            return _failed(job, TIMED_OUT, f"attempt {job.attempt} took longer than {job.spec.timeout_s:g} s")
        log.exception("connector_failed", job_id=job.spec.job_id, connector=tool.connector.name)
        return _failed(job, "connector_error", f"{type(error).__name__}: {error}")
    return Outcome(job_id=job.spec.job_id, attempt=job.attempt, kind=OutcomeKind.COMPLETED, result=result)


async def _in_a_file(result: Raw, files: JobFiles, result_bytes_max: int) -> Raw:
    """Keep a result beside its job, and return what says where: the queue and its events carry no blobs."""
    try:
        kept = await files.put(_RESULT_NAME, bytes(result))
    except PayloadTooLarge as error:
        raise ResultTooLarge(
            f"the result has {len(result)} bytes; {result_bytes_max} are told (setting job_result_bytes_max), and as a "
            f"file it cannot be kept either: {error.message}"
        ) from None
    return encode_result(ResultFile(result_file=kept))


def _is_cancelled() -> bool:
    """Whether we were asked to stop; a connector's own trouble can look the same."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failed(
    job: ClaimedJob, code: str, message: str, *, retriable: bool = True, retry_after_s: float | None = None
) -> Outcome:
    error = JobError(code=code, message=message[:_MESSAGE_CHARS_MAX], retriable=retriable, retry_after_s=retry_after_s)
    return Outcome(job_id=job.spec.job_id, attempt=job.attempt, kind=OutcomeKind.FAILED, error=error)


def returned(job: ClaimedJob) -> Outcome:
    return Outcome(job_id=job.spec.job_id, attempt=job.attempt, kind=OutcomeKind.RETURNED)


def attempt_facts(job: ClaimedJob, tool: Tool | None, outcome: Outcome, took_s: float) -> dict[str, Any]:
    """Return what is noted of an attempt."""
    facts: dict[str, Any] = {
        "job_id": job.spec.job_id,
        "correlation_id": job.spec.correlation_id or job.spec.job_id,
        "attempt": job.attempt,
        "outcome": outcome.kind,
        "service": tool.service.name if tool is not None and tool.service is not None else job.spec.service_required,
        "took_s": round(took_s, 3),
    }
    return facts if outcome.error is None else facts | {"code": outcome.error.code, "error": outcome.error.message}
