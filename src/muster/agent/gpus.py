"""The GPUs of this node: what was found when it came up, with the figures of now."""

import asyncio
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from muster.domain.gpu import Gpu
from muster.errors import MusterError, UpstreamTimeout
from muster.ports import GpuProbe

SimulatedGpus = Callable[[int], GpuProbe]

_READ_DEADLINE_S = 6.0  # probes keep a shorter one; this is for a probe that does not


class GpuReading(Struct, frozen=True):
    gpus: tuple[Gpu, ...]
    problem: str | None = None


class Gpus:
    """`wanted` is how many this node must have; None: as many as are found."""

    def __init__(self, probe: GpuProbe, simulated: SimulatedGpus, wanted: int | None) -> None:
        self._probe = probe
        self._simulated = simulated
        self._wanted = wanted
        self._inventory: dict[int, Gpu] = {}

    @property
    def inventory(self) -> tuple[Gpu, ...]:
        return tuple(self._inventory.values())

    async def take_stock(self) -> int:
        """Learn what is there and return how many real GPUs were found; where none is, the wanted are simulated."""
        found = await self._figures()
        count = len(found)
        if self._wanted and not found:
            self._probe = self._simulated(self._wanted)
            found = await self._figures()
        self._inventory = dict(list(found.items())[: self._wanted])
        return count

    async def read(self) -> GpuReading:
        """Return every GPU of the inventory; a figure that cannot be read now is None, not that of before."""
        if not self._inventory:
            return GpuReading(())
        problem = None
        try:
            now = await self._figures()
        except MusterError as error:
            now, problem = {}, f"the GPUs cannot be read: {error.message}"
        else:
            if missing := [str(index) for index in self._inventory if index not in now]:
                problem = f"GPU {', '.join(missing)} is not seen any more"
        return GpuReading(tuple(now.get(gpu.index) or _unread(gpu) for gpu in self.inventory), problem)

    async def _figures(self) -> dict[int, Gpu]:
        try:
            async with asyncio.timeout(_READ_DEADLINE_S):
                return {gpu.index: gpu for gpu in await self._probe.read()}
        except TimeoutError:
            raise UpstreamTimeout(f"no figures within {_READ_DEADLINE_S:g} s") from None


def _unread(gpu: Gpu) -> Gpu:
    return replace(gpu, memory_used_mb=None, utilization_percent=None, temperature_c=None, power_w=None)
