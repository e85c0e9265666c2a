"""A batch: a file of requests that become jobs, and the files that its answers are in. As OpenAI has them."""

from enum import StrEnum

from msgspec import Struct


class BatchStatus(StrEnum):
    VALIDATING = "validating"
    FAILED = "failed"  # its file is not what it should be: nothing was done
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"  # how an open one is shown that is to be cancelled
    CANCELLED = "cancelled"


BATCH_ENDED = frozenset({BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED})


class KeptFile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file as people know it. What is in it lies under `place`, the owner and name of a blob."""

    file_id: str
    place: tuple[str, str]
    filename: str
    purpose: str
    bytes: int
    created_at_ms: int
    owner: str | None = None  # the id of the token that was shown


class LineError(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`line` counts from 1; without one it is about the whole."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Slice(Struct, frozen=True, kw_only=True, array_like=True):
    """Some lines in a row: where they begin in the file, and how they ended once they all have."""

    first_line: int
    last_line: int
    start: int  # bytes
    end: int
    completed: int = -1
    failed: int = -1

    @property
    def done(self) -> bool:
        return self.completed >= 0


class Batch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a batch; `slices` say how far it is. `completed` and `failed` count lines, for people."""

    batch_id: str
    endpoint: str
    input_file_id: str
    input_place: tuple[str, str]
    completion_window: str
    created_at_ms: int
    expires_at_ms: int
    owner: str | None = None  # the id of the token that was shown
    metadata: dict[str, str] | None = None
    traceparent: str | None = None  # of the trace that it is a part of
    status: BatchStatus = BatchStatus.VALIDATING
    ending: BatchStatus | None = None  # what it comes to, once that is known and its files are being put together
    slices: tuple[Slice, ...] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0
    errors: tuple[LineError, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    at_ms: dict[str, int] = {}  # when it came to each status
    cancel_asked_ms: int | None = None
    told: bool = False  # its end is in the log
