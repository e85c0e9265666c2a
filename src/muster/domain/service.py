from enum import StrEnum

from msgspec import Struct

from muster.domain.model import Model


class ServiceStatus(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    UNHEALTHY = "unhealthy"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class Dialect(StrEnum):
    """The API a service speaks. An Ollama server speaks both."""

    OPENAI = "openai"
    OLLAMA = "ollama"


class Footprint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the processes of a service take now. A figure that could not be read is None, never 0.

    Those of the GPU are for nodes that tell them by process; others tell who uses each GPU (`Gpu.owners`).
    """

    cpu_percent: float | None = None  # of one processor: two that are busy are 200
    memory_mb: int | None = None
    io_read_mb_s: float | None = None
    io_write_mb_s: float | None = None
    gpu_utilization_percent: float | None = None
    gpu_memory_mb: int | None = None


class Service(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One backend process on a node, supervised by its agent or found running."""

    name: str
    connector: str
    status: ServiceStatus
    url: str | None = None
    dialects: tuple[Dialect, ...] = ()
    models: tuple[Model, ...] = ()
    slots: int | None = None
    slots_busy: int | None = None
    memory_total_bytes: int | None = None  # of the GPUs it uses, where it says so itself
    memory_free_bytes: int | None = None
    draining: bool = False  # by its own word: it ends what runs and takes nothing new
    managed: bool = False
    pid: int | None = None
    gpu_index: int | None = None
    footprint: Footprint | None = None  # None: nobody measures it
    started_at_ms: int | None = None
    restarts: int = 0
    error: str | None = None
