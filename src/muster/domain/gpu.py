from enum import StrEnum

from msgspec import Struct


class GpuFault(StrEnum):
    """Why a GPU could not be read."""

    LOST = "lost"  # it fell off the bus
    NEEDS_RESET = "needs_reset"
    SILENT = "silent"  # its driver does not answer


class GpuOwner(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who uses a GPU: a service of the node, or a process from outside by its name."""

    name: str
    pids: tuple[int, ...] = ()
    memory_mb: int | None = None
    utilization_percent: float | None = None
    service: bool = False


class Gpu(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One GPU, or one MIG instance of one, as last read. A figure that could not be read is None, never 0."""

    index: int
    name: str = "unknown"
    uuid: str | None = None
    pci: str | None = None
    parent: str | None = None  # of a MIG instance: the uuid of its card
    driver: str | None = None
    memory_total_mb: int | None = None
    memory_used_mb: int | None = None
    utilization_percent: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    clock_mhz: int | None = None
    throttled: tuple[str, ...] | None = None  # what holds its clocks down; None: unknown
    ecc_corrected: int | None = None  # since the driver was loaded
    ecc_uncorrected: int | None = None
    xid: int | None = None  # the last error of the hardware, by NVIDIA's number
    xids: int = 0  # how many there were since they are listened for
    owners: tuple[GpuOwner, ...] | None = None  # None: unknown
    fault: GpuFault | None = None
    out_of_service: str | None = None  # why nothing is given to it, in words
    simulated: bool = False

    @property
    def memory_free_mb(self) -> int | None:
        if self.memory_total_mb is None or self.memory_used_mb is None:
            return None
        return max(0, self.memory_total_mb - self.memory_used_mb)

    def without_figures(self, fault: GpuFault | None = None) -> "Gpu":
        """Return what it is, and nothing of how it is now."""
        return Gpu(
            index=self.index,
            name=self.name,
            uuid=self.uuid,
            pci=self.pci,
            parent=self.parent,
            driver=self.driver,
            memory_total_mb=self.memory_total_mb,
            fault=fault,
            simulated=self.simulated,
        )
