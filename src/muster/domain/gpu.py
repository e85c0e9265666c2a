from msgspec import Struct


class Gpu(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One GPU as last read. A figure that could not be read is None, never 0."""

    index: int
    name: str = "unknown"
    uuid: str | None = None
    memory_total_mb: int | None = None
    memory_used_mb: int | None = None
    utilization_percent: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    simulated: bool = False

    @property
    def memory_free_mb(self) -> int | None:
        if self.memory_total_mb is None or self.memory_used_mb is None:
            return None
        return max(0, self.memory_total_mb - self.memory_used_mb)
