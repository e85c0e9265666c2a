"""NVIDIA's GPUs by a helper process that calls NVML and is killed when a call hangs."""

import ctypes
import sys
from collections.abc import Callable, Sequence

import structlog
from msgspec import json

from muster.clock import Clock
from muster.devices.helper_process import HelperProcess
from muster.devices.nvml_helper import Answer
from muster.domain.gpu import Gpu, GpuFault
from muster.errors import MusterError
from muster.system import SystemClock

log = structlog.get_logger()

HELPER = (sys.executable, "-m", "muster.devices.nvml_helper")
_ABSENT_REST_S = 60.0
_DECODER = json.Decoder(Answer)


def library_is_there() -> bool:
    """Tell whether there is a library to load. Loading it calls nothing of the driver."""
    if sys.platform == "win32":
        return True  # where it lies is the helper's to find out
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


class NvmlProbe:
    def __init__(
        self,
        *,
        command: Sequence[str] = HELPER,
        clock: Clock | None = None,
        answer_s: float = 4.0,
        first_answer_s: float = 20.0,
        is_there: Callable[[], bool] = library_is_there,
    ) -> None:
        self._clock = clock or SystemClock()
        self._helper = HelperProcess(command, self._clock, answer_s=answer_s, first_answer_s=first_answer_s)
        self._is_there = is_there
        self._known: tuple[Gpu, ...] = ()
        self._absent_until_s = 0.0
        self._said: str | None = None

    async def read(self) -> tuple[Gpu, ...] | None:
        """Return None where there is no driver. A driver that cannot be read raises as long as nothing is known."""
        if self._clock.monotonic_s() < self._absent_until_s:
            return None
        if not self._known and not self._is_there():
            self._note_absent("there is no NVML library")
            return None
        try:
            answer = _DECODER.decode(await self._helper.ask())
        except MusterError as error:
            self._say("gpus_unreadable", error.message)
            if not self._known:
                raise
            return tuple(gpu.without_figures(GpuFault.SILENT) for gpu in self._known)
        if answer.absent is not None:
            await self._helper.close()
            self._note_absent(answer.absent)
            return None
        self._known = answer.gpus
        self._said = None
        return answer.gpus

    @property
    def helper_pid(self) -> int | None:
        return self._helper.pid

    def look_again(self) -> None:
        """Take what was absent for possible: the machine changed."""
        self._absent_until_s = 0.0

    async def close(self) -> None:
        await self._helper.close()

    def _note_absent(self, why: str) -> None:
        self._known = ()
        self._absent_until_s = self._clock.monotonic_s() + _ABSENT_REST_S
        self._say("no_nvidia_gpus", why)

    def _say(self, event: str, why: str) -> None:
        """Log a reason once, until it changes or is gone."""
        if why != self._said:
            self._said = why
            log.info(event, reason=why)
