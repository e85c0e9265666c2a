"""The error tree: what can go wrong, as clients see it.

Every class carries a stable `code`, the HTTP status it maps to and whether a retry can help. The shapes on the wire
(JSON problem, OpenAI error, Ollama error) are rendered from these in one place per dialect.

    MusterError
    ├── InvalidInput 400 ── PayloadTooLarge 413 ── ResultTooLarge
    ├── Unauthorized 401 · Forbidden 403
    ├── NotFound 404 ── NodeNotFound · JobNotFound · ModelNotFound · CommandNotFound · MachineNotFound
    │                · PoolNotFound · WebhookNotFound · BatchNotFound · ScheduleNotFound
    ├── Conflict 409 ── InvalidTransition · OverBudget · PoolAmbiguous
    ├── QueueFull 429 · RateLimited 429 · QuotaExceeded 429
    ├── FilesFull 507
    ├── UpstreamFailed 502 ── UpstreamTimeout 504 · NodeNotConnected 502 · ArtifactFailed 502 ── DiskFull 507
    ├── CloudFailed 502 ── CloudRefused 502 · NoCapacity 503 · CloudQuotaReached 503
    ├── NoWorker 503 ── ModelAsleep 503 · PoolNotReady · ModelNotAvailable
    ├── SwitchedOff 503 ── CloudNotConfigured · ImageModelBroken
    ├── StoreUnavailable 503 · ShuttingDown 503
    └── SetupError (start-up only: has a next step for the person at the keyboard)
"""

from typing import Any, ClassVar


class MusterError(Exception):
    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    retriable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, field: str | None = None, retry_after_s: float | None = None, **data: Any
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s
        self.data = data

    def to_dict(self) -> dict[str, Any]:
        """Render the one JSON shape that all errors of the API have."""
        body: dict[str, Any] = {"code": self.code, "message": self.message, "retriable": self.retriable}
        if self.field is not None:
            body["field"] = self.field
        if self.retry_after_s is not None:
            body["retry_after_ms"] = int(self.retry_after_s * 1000)
        return body | self.data


class InvalidInput(MusterError):
    code = "invalid_input"
    http_status = 400


class PayloadTooLarge(InvalidInput):
    code = "payload_too_large"
    http_status = 413


class ResultTooLarge(PayloadTooLarge):
    """What a job came to can neither be told nor kept as a file."""

    code = "result_too_large"


class Unauthorized(MusterError):
    code = "unauthorized"
    http_status = 401


class Forbidden(MusterError):
    code = "forbidden"
    http_status = 403


class NotFound(MusterError):
    code = "not_found"
    http_status = 404


class NodeNotFound(NotFound):
    code = "node_not_found"


class JobNotFound(NotFound):
    code = "job_not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class PoolNotFound(NotFound):
    code = "POOL_NOT_FOUND"


class CommandNotFound(NotFound):
    code = "command_not_found"


class ScheduleNotFound(NotFound):
    code = "schedule_not_found"


class MachineNotFound(NotFound):
    code = "machine_not_found"


class BatchNotFound(NotFound):
    code = "batch_not_found"


class WebhookNotFound(NotFound):
    code = "webhook_not_found"


class Conflict(MusterError):
    code = "conflict"
    http_status = 409


class InvalidTransition(Conflict):
    """A state machine was asked for a step that its table does not have."""

    code = "invalid_transition"


class OverBudget(Conflict):
    """A rented machine would cost more than the settings allow."""

    code = "over_budget"


class PoolAmbiguous(Conflict):
    """Several nodes have a pool of that name."""

    code = "POOL_AMBIGUOUS"


class QueueFull(MusterError):
    code = "queue_full"
    http_status = 429
    retriable = True


class FilesFull(MusterError):
    """The files of all jobs together have reached their limit."""

    code = "files_full"
    http_status = 507
    retriable = True


class RateLimited(MusterError):
    """One token asks too often; `retry_after_s` says when it may again."""

    code = "rate_limited"
    http_status = 429
    retriable = True


class QuotaExceeded(MusterError):
    """A token has used up its budget; the code is the one that OpenAI's clients know."""

    code = "insufficient_quota"
    http_status = 429


class UpstreamFailed(MusterError):
    code = "upstream_failed"
    http_status = 502
    retriable = True


class UpstreamTimeout(UpstreamFailed):
    code = "upstream_timeout"
    http_status = 504


class NodeNotConnected(UpstreamFailed):
    code = "node_not_connected"


class ArtifactFailed(UpstreamFailed):
    """A model or bundle that a node wants cannot be had; `next_step` says what the person can do."""

    code = "artifact_failed"

    def __init__(self, message: str, *, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step


class DiskFull(ArtifactFailed):
    code = "disk_full"
    http_status = 507


class NoWorker(MusterError):
    code = "no_worker_available"
    http_status = 503
    retriable = True


class ModelAsleep(NoWorker):
    """A machine at rest has the model and did not come up for it."""

    code = "model_asleep"


class CloudFailed(MusterError):
    """The cloud did not answer, or not in a way that says more."""

    code = "cloud_failed"
    http_status = 502
    retriable = True


class CloudRefused(CloudFailed):
    """Its credentials are missing, wrong, or not enough."""

    code = "cloud_refused"
    retriable = False


class NoCapacity(CloudFailed):
    code = "no_capacity"
    http_status = 503


class CloudQuotaReached(CloudFailed):
    code = "cloud_quota_reached"
    http_status = 503
    retriable = False


class PoolNotReady(NoWorker):
    code = "POOL_NOT_READY"


class ModelNotAvailable(NoWorker):
    """Nobody in the fleet has the model that a task wants."""

    code = "MODEL_NOT_AVAILABLE"


class SwitchedOff(MusterError):
    """A part that this control plane was told not to offer."""

    code = "switched_off"
    http_status = 503


class CloudNotConfigured(SwitchedOff):
    code = "cloud_not_configured"


class ImageModelBroken(SwitchedOff):
    """The file of an image model is not what it has to be, or its workflow keeps no picture."""

    code = "image_model_broken"


class StoreUnavailable(MusterError):
    code = "store_unavailable"
    http_status = 503
    retriable = True


class ShuttingDown(MusterError):
    code = "shutting_down"
    http_status = 503
    retriable = True


class SetupError(MusterError):
    """Something on this machine keeps Muster from starting; `next_step` says what the person can do."""

    code = "setup_error"

    def __init__(self, message: str, *, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step
