"""What can go wrong for a caller: the control plane's own errors as their classes, and those of this side."""

from collections.abc import Iterator, Mapping
from typing import Any

from muster.client.jobs import Job
from muster.errors import MusterError, SetupError


class Unreachable(MusterError):
    """No control plane answers, and has not for as long as the client was told to try."""

    code = "unreachable"
    http_status = 503
    retriable = True


class NotTrusted(Unreachable):
    """Its certificate is signed by nobody whom the client was told to trust; asking again changes nothing."""

    code = "not_trusted"
    retriable = False


class Refused(MusterError):
    """The control plane said no with a code that this version does not know; see `data`."""

    code = "refused"


class WaitTimedOut(MusterError):
    """The job has not ended by the deadline of the wait; it goes on. `job` is how it stood last."""

    code = "wait_timed_out"
    http_status = 504
    retriable = True

    def __init__(self, message: str, job: Job | None = None) -> None:
        super().__init__(message)
        self.job = job


class JobFailed(MusterError):
    """A result was asked for, and the job ended without one: `job` says how."""

    code = "job_failed"

    def __init__(self, job: Job) -> None:
        why = f": {job.error.message}" if job.error is not None else ""
        super().__init__(f"{job.job_id} is {job.status}{why}")
        self.job = job


def _classes(kind: type[MusterError]) -> Iterator[type[MusterError]]:
    for subclass in kind.__subclasses__():
        if not issubclass(subclass, SetupError):
            yield subclass
            yield from _classes(subclass)


_BY_CODE = {kind.code: kind for kind in _classes(MusterError) if kind.__module__ == MusterError.__module__}
_TOLD = frozenset({"type", "code", "message", "error", "retriable", "field", "retry_after_ms", "timestamp"})


def error_of(body: Any, **data: Any) -> MusterError:
    """Make the error that the control plane raised out of what it said of it; `data` goes with it."""
    said: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    code = str(said.get("code") or "")
    message = str(said.get("message") or said.get("error") or f"the control plane answered {data.get('status')}")
    retry_after_ms = said.get("retry_after_ms")
    data = {name: value for name, value in said.items() if name not in _TOLD} | data
    kind = _BY_CODE.get(code)
    if kind is None:
        kind, data = Refused, data | {"refused_code": code}
    return kind(
        message,
        field=said.get("field"),
        retry_after_s=retry_after_ms / 1000 if isinstance(retry_after_ms, int | float) else None,
        **data,
    )
