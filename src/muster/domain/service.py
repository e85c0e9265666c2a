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
    """The API a service speaks. An Ollama server speaks the first two; who speaks OpenAI's may know Anthropic's too."""

    OPENAI = "openai"
    OLLAMA = "ollama"
    ANTHROPIC = "anthropic"


class Service(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One backend process on a node, supervised by its agent or found running."""

    name: str
    connector: str
    status: ServiceStatus
    url: str | None = None
    dialects: tuple[Dialect, ...] = ()
    models: tuple[Model, ...] = ()
    slots: int | None = None
    slots_busy: int | None = None  # by the engine's word; where slots are unknown: the requests it works on
    requests_waiting: int | None = None  # in the engine's own line
    memory_total_bytes: int | None = None  # of the GPUs it uses, where it says so itself
    memory_free_bytes: int | None = None
    draining: bool = False  # by its own word: it ends what runs and takes nothing new
    managed: bool = False
    on_demand: bool = False  # its models are loaded and unloaded by command
    pid: int | None = None
    gpu_index: int | None = None
    started_at_ms: int | None = None
    restarts: int = 0
    error: str | None = None
