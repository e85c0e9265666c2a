"""The GPUs of this machine by what there is to read them: NVML, else `nvidia-smi`; `rocm-smi` for AMD's; or none."""

import math
import shutil
from pathlib import Path

from msgspec.structs import replace

from muster.clock import Clock
from muster.devices.nvidia_smi import NvidiaSmi
from muster.devices.nvml import NvmlProbe
from muster.devices.rocm_smi import RocmSmi
from muster.domain.gpu import Gpu
from muster.system import SystemClock

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))
_LOOK_EVERY_S = 2.0  # whether a driver came or went
_PROGRAM_REST_S = 60.0  # one that found nothing is asked again after that, or when the machine looks different


class MachineGpus:
    """A GpuProbe."""

    def __init__(
        self,
        nvml: NvmlProbe | None = None,
        nvidia_smi: NvidiaSmi | None = None,
        rocm_smi: RocmSmi | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._nvml = nvml or NvmlProbe(clock=self._clock)
        self._programs: dict[str, NvidiaSmi | RocmSmi] = {
            "nvidia": nvidia_smi or NvidiaSmi(clock=self._clock),
            "amd": rocm_smi or RocmSmi(clock=self._clock),
        }
        self._rests_until_s = dict.fromkeys(self._programs, 0.0)
        self._signs: object = None
        self._looked_s = -math.inf

    async def read(self) -> tuple[Gpu, ...]:
        """Raise when what there is cannot be read and never could be: that is not the same as none."""
        self._look_for_drivers()
        nvidia = await self._nvml.read()
        if nvidia is None:
            nvidia = await self._ask_program("nvidia")
        amd = await self._ask_program("amd")
        return (*nvidia, *(replace(gpu, index=len(nvidia) + gpu.index) for gpu in amd))

    def _look_for_drivers(self) -> None:
        if not 0 <= self._clock.monotonic_s() - self._looked_s < _LOOK_EVERY_S:
            self._looked_s = self._clock.monotonic_s()
            if (signs := _signs()) != self._signs:
                self._signs = signs
                self._nvml.look_again()
                self._rests_until_s = dict.fromkeys(self._programs, 0.0)

    async def close(self) -> None:
        await self._nvml.close()

    async def _ask_program(self, kind: str) -> tuple[Gpu, ...]:
        if self._clock.monotonic_s() < self._rests_until_s[kind]:
            return ()
        gpus = await self._programs[kind].read()
        if gpus is None:
            self._rests_until_s[kind] = self._clock.monotonic_s() + _PROGRAM_REST_S
        return gpus or ()


def _signs() -> object:
    """Return what changes when a driver comes, goes or is replaced."""
    try:
        driver = _NVIDIA_DRIVER.read_text()
    except OSError:
        driver = None
    return driver, [path.exists() for path in _DEVICES], shutil.which("nvidia-smi"), shutil.which("rocm-smi")
