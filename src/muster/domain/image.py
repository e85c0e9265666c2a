"""Pictures that somebody waits for: what was asked, and what came of it."""

from msgspec import Struct

from muster.domain.file import FileRef
from muster.ids import JobId, WorkerId


class ImageOrder(Struct, frozen=True, kw_only=True):
    """`n` pictures of a model; what is None is as the model has it. `owner` is the id of the token that was shown."""

    model: str
    prompt: str
    n: int = 1
    size: tuple[int, int] | None = None  # width and height in pixels
    negative_prompt: str | None = None
    seed: int | None = None
    steps: int | None = None
    owner: str | None = None
    priority: int = 50
    correlation_id: str | None = None  # of the request


class Made(Struct, frozen=True, kw_only=True):
    """The pictures, in their order, and which work they were: its jobs, where the first ran, and how long all took."""

    pictures: tuple[FileRef, ...]
    job_ids: tuple[JobId, ...]
    service: str
    worker_id: WorkerId | None
    worked_ms: int
