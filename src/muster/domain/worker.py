from enum import StrEnum

from msgspec import Struct, field

from muster.ids import JobId, SessionId, WorkerId


class WorkerStatus(StrEnum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    STOPPED = "stopped"
    ERROR = "error"


class Worker(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One unit of capacity on a node, normally one per GPU; it runs at most one job per slot."""

    worker_id: WorkerId
    index: int
    status: WorkerStatus
    slots: int = 1
    gpu_index: int | None = None
    service: str | None = None  # the one service that it is, where it does not drive several
    session_id: SessionId | None = None
    connectors: tuple[str, ...] = ()
    connector_statuses: dict[str, str] = field(default_factory=dict)
    current_jobs: tuple[JobId, ...] = ()
    jobs_completed: int = 0
    jobs_failed: int = 0
