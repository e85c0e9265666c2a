"""NVIDIA's GPUs by NVML, the driver's own library.

A call to a broken driver may never return, and nothing can end it. So calls run in a thread that nobody waits for, with
a deadline; as long as one hangs no second one is begun.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import structlog
from msgspec import structs

from muster.domain.gpu import Gpu

log = structlog.get_logger()

T = TypeVar("T")

_MB = 1_048_576
_MILLIWATTS = 1000


class NvmlProbe:
    """A GpuProbe. `load_library` returns a module with the functions of `pynvml`."""

    def __init__(self, load_library: Callable[[], Any] | None = None, *, timeout_s: float = 5.0) -> None:
        self._load_library = load_library or _load_pynvml
        self._timeout_s = timeout_s
        self._library: Any = None  # once it is set up: doing so may wake up every card, so it is kept
        self._reading: Future[tuple[Gpu, ...]] | None = None
        self._known: tuple[Gpu, ...] = ()
        self._said: str | None = None

    async def read(self) -> tuple[Gpu, ...]:
        reading = self._reading
        if reading is None or reading.done():
            reading = self._reading = _in_thread(self._read)
        try:
            async with asyncio.timeout(self._timeout_s):
                self._known = await asyncio.wrap_future(reading)
        except TimeoutError:
            self._known = self._unread(f"the driver did not answer within {self._timeout_s:g} s")
        return self._known

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _read(self) -> tuple[Gpu, ...]:
        if self._library is None:
            try:
                library = self._load_library()
                library.nvmlInit()
            except Exception as error:  # noqa: BLE001 - whatever the reason: this machine has no GPU that we could read
                return self._nothing(str(error))
            self._library = library
        nvml = self._library
        try:
            gpus = tuple(self._read_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
        except nvml.NVMLError as error:
            self._library = None  # the driver may have been replaced
            return self._unread(str(error))
        if all(gpu.memory_used_mb is not None for gpu in gpus):
            self._said = None
        return gpus

    def _read_gpu(self, nvml: Any, index: int) -> Gpu:
        """Ask for each figure by itself: what one card or driver does not tell is None, and the rest stands."""
        known = next((gpu for gpu in self._known if gpu.index == index), Gpu(index=index))

        def ask(question: Callable[..., T], *arguments: Any) -> T | None:
            try:
                return question(*arguments)
            except nvml.NVMLError:
                return None

        handle = ask(nvml.nvmlDeviceGetHandleByIndex, index)
        if handle is None:
            self._say("gpu_lost", f"GPU {index} does not answer")
            return _without_figures(known)
        memory = ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        utilization = ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        power_mw = ask(nvml.nvmlDeviceGetPowerUsage, handle)
        temperature_c = ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        return Gpu(
            index=index,
            name=ask(nvml.nvmlDeviceGetName, handle) or known.name,
            uuid=ask(nvml.nvmlDeviceGetUUID, handle) or known.uuid,
            memory_total_mb=known.memory_total_mb if memory is None else memory.total // _MB,
            memory_used_mb=None if memory is None else memory.used // _MB,
            utilization_percent=None if utilization is None else float(utilization.gpu),
            temperature_c=None if temperature_c is None else float(temperature_c),
            power_w=None if power_mw is None else power_mw / _MILLIWATTS,
        )

    # -----------------------------------------------------------------------------------------------------------------

    def _nothing(self, why: str) -> tuple[Gpu, ...]:
        self._say("no_nvidia_gpus", why)
        return ()

    def _unread(self, why: str) -> tuple[Gpu, ...]:
        self._say("gpus_unreadable", why)
        return tuple(_without_figures(gpu) for gpu in self._known)

    def _say(self, event: str, why: str) -> None:
        """Log a reason once, until it changes or is gone."""
        if why != self._said:
            self._said = why
            log.info(event, reason=why)


def _without_figures(gpu: Gpu) -> Gpu:
    return structs.replace(gpu, memory_used_mb=None, utilization_percent=None, temperature_c=None, power_w=None)


def _load_pynvml() -> Any:
    import pynvml

    return pynvml


def _in_thread(work: Callable[[], T]) -> Future[T]:
    """Run `work` in a thread that does not keep the process from ending."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # from now on it cannot be cancelled: it ends when the thread does

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            future.set_exception(error)

    threading.Thread(target=run, name="nvml", daemon=True).start()
    return future
