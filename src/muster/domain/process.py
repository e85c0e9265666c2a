from msgspec import Struct


class ProcessFigures(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a service instance is doing, its children counted in. A figure that could not be read is None, never 0."""

    name: str  # the instance's, and so the service's
    group: str  # the template's
    pid: int
    processes: int | None = None  # how many there are
    cpu_percent: float | None = None  # 100 is one core; known from the second reading on, as the rates are
    rss_mb: float | None = None
    read_bytes_s: int | None = None  # from and to disks
    write_bytes_s: int | None = None
    uptime_s: int | None = None
    model: str | None = None  # as its command line names it
    gpu_utilization_percent: float | None = None  # told here by who does not tell GPUs with their owners
    gpu_memory_mb: int | None = None


UNMEASURED = ProcessFigures(name="", group="", pid=0)
