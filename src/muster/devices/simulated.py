"""GPUs for machines that have none, to try a fleet anywhere: marked as such, and nothing is known of their use."""

from muster.domain.gpu import Gpu

_MEMORY_TOTAL_MB = 16_384


class SimulatedGpus:
    def __init__(self, count: int) -> None:
        self._gpus = tuple(
            Gpu(
                index=index,
                name="Simulated GPU",
                uuid=f"simulated-{index}",
                memory_total_mb=_MEMORY_TOTAL_MB,
                simulated=True,
            )
            for index in range(count)
        )

    async def read(self) -> tuple[Gpu, ...]:
        return self._gpus
