"""NVIDIA's GPUs by NVML, the driver's own library. A call to a broken driver may never return: `nvml_helper.py` calls.

Each figure is asked by itself: what one card or driver does not tell is None, and the rest stands.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from muster.domain.gpu import Gpu, GpuFault, GpuOwner

T = TypeVar("T")

MB = 1_048_576
_MILLIWATTS = 1000
_EVENTS_MAX = 64  # taken in one reading
_MIG_ENABLED = 1
# What programs do wrong themselves, by NVIDIA's numbers: bad addresses, timeouts of their own, being killed.
_XIDS_OF_PROGRAMS = frozenset({13, 31, 43, 45, 68, 69})
THROTTLES = {
    0x04: "power_cap",
    0x08: "hardware_slowdown",
    0x20: "thermal",
    0x40: "hardware_thermal",
    0x80: "power_brake",
}


class NvmlReader:
    """`nvml` has the functions of `pynvml`. Raises its NVMLError when there is no driver, or no longer one."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self._driver: str | None = _told(nvml.NVMLError, nvml.nvmlSystemGetDriverVersion)
        self._known: dict[int, Gpu] = {}  # by number of the card
        self._utilization_seen_us: dict[int, int] = {}
        self._xids: dict[str, tuple[int, int]] = {}  # the last one and how many, by uuid
        self._events: Any = None
        self._listened: set[str] = set()
        with suppress(nvml.NVMLError):
            self._events = nvml.nvmlEventSetCreate()

    def read(self) -> tuple[Gpu, ...]:
        """Return each card, or in its place the MIG instances that it is split into, numbered in this order."""
        count = self._nvml.nvmlDeviceGetCount()
        self._take_events()
        found = [gpu for number in range(count) for gpu in self._read_card(number)]
        return tuple(replace(gpu, index=index) for index, gpu in enumerate(found))

    def _read_card(self, number: int) -> Iterator[Gpu]:
        card = _Questions(self._nvml, self._nvml.nvmlDeviceGetHandleByIndex, number)
        if card.handle is None:
            yield self._known.get(number, Gpu(index=number)).without_figures(card.fault or GpuFault.SILENT)
            return
        known = self._known.get(number) or self._identify(card, number)
        gpu = self._figures(card, known, self._processes(card, number))
        if card.fault is not None:
            yield known.without_figures(card.fault)
            return
        if known.uuid is not None:  # an unnamed one is asked again
            self._known[number] = known
            self._listen(card, known.uuid)
        mode = card.ask("nvmlDeviceGetMigMode")
        if mode is None or mode[0] != _MIG_ENABLED:
            yield gpu
        else:
            yield from self._read_instances(card, gpu)

    def _identify(self, card: "_Questions", number: int) -> Gpu:
        memory = card.ask("nvmlDeviceGetMemoryInfo")
        pci = card.ask("nvmlDeviceGetPciInfo")
        return Gpu(
            index=number,
            name=card.ask("nvmlDeviceGetName") or "unknown",
            uuid=card.ask("nvmlDeviceGetUUID"),
            pci=None if pci is None else _text(pci.busId).lower(),
            driver=self._driver,
            memory_total_mb=None if memory is None else memory.total // MB,
            power_limit_w=_watts(card.ask("nvmlDeviceGetEnforcedPowerLimit")),
        )

    def _figures(self, card: "_Questions", known: Gpu, owners: tuple[GpuOwner, ...] | None) -> Gpu:
        nvml = self._nvml
        memory = card.ask("nvmlDeviceGetMemoryInfo")
        utilization = card.ask("nvmlDeviceGetUtilizationRates")
        temperature_c = card.ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU)
        throttles = card.ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        xid, xids = self._xids.get(known.uuid or "", (None, 0))
        return replace(
            known,
            memory_used_mb=None if memory is None else memory.used // MB,
            utilization_percent=None if utilization is None else float(utilization.gpu),
            temperature_c=None if temperature_c is None else float(temperature_c),
            power_w=_watts(card.ask("nvmlDeviceGetPowerUsage")),
            clock_mhz=card.ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            throttled=None if throttles is None else throttle_names(throttles),
            ecc_corrected=self._ecc_errors(card, nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            ecc_uncorrected=self._ecc_errors(card, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
            xid=xid,
            xids=xids,
            owners=owners,
        )

    def _ecc_errors(self, card: "_Questions", kind: int) -> int | None:
        errors: int | None = card.ask("nvmlDeviceGetTotalEccErrors", kind, self._nvml.NVML_VOLATILE_ECC)
        return errors

    # --- MIG ---------------------------------------------------------------------------------------------------------

    def _read_instances(self, card: "_Questions", parent: Gpu) -> Iterator[Gpu]:
        """Yield each with its own memory and processes; heat, power and errors are those of its card."""
        for number in range(card.ask("nvmlDeviceGetMaxMigDeviceCount") or 0):
            instance = _Questions(self._nvml, self._nvml.nvmlDeviceGetMigDeviceHandleByIndex, card.handle, number)
            if instance.handle is None:  # no instance has this number
                continue
            memory = instance.ask("nvmlDeviceGetMemoryInfo")
            yield replace(
                parent,
                name=instance.ask("nvmlDeviceGetName") or f"{parent.name} MIG",
                uuid=instance.ask("nvmlDeviceGetUUID"),
                parent=parent.uuid,
                memory_total_mb=None if memory is None else memory.total // MB,
                memory_used_mb=None if memory is None else memory.used // MB,
                utilization_percent=None,
                owners=self._processes(instance, None),
            )

    # --- processes ---------------------------------------------------------------------------------------------------

    def _processes(self, device: "_Questions", number: int | None) -> tuple[GpuOwner, ...] | None:
        """Return one owner for each process. One that both computes and draws is listed twice with the same memory."""
        compute = device.ask("nvmlDeviceGetComputeRunningProcesses")
        graphics = device.ask("nvmlDeviceGetGraphicsRunningProcesses")
        if compute is None and graphics is None:
            return None
        memory_bytes: dict[int, int | None] = {}
        for process in (*(compute or ()), *(graphics or ())):
            known = memory_bytes.get(process.pid)
            memory_bytes[process.pid] = max(known or 0, process.usedGpuMemory or 0) or None
        percent = self._process_percents(device, number) if number is not None else {}
        return tuple(
            GpuOwner(
                name=self._process_name(pid),
                pids=(pid,),
                memory_mb=None if used is None else used // MB,
                utilization_percent=percent.get(pid),
            )
            for pid, used in sorted(memory_bytes.items())
        )

    def _process_percents(self, device: "_Questions", number: int) -> dict[int, float]:
        """Return the mean of what was sampled since the last reading; who is not in it is unknown."""
        samples = device.ask("nvmlDeviceGetProcessUtilization", self._utilization_seen_us.get(number, 0)) or ()
        percents: dict[int, list[int]] = {}
        for sample in samples:
            percents.setdefault(sample.pid, []).append(sample.smUtil)
            seen_us = self._utilization_seen_us.get(number, 0)
            self._utilization_seen_us[number] = max(seen_us, sample.timeStamp)
        return {pid: round(sum(each) / len(each), 1) for pid, each in percents.items()}

    def _process_name(self, pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:  # not Linux, or it is outside of our container
            name = _told(self._nvml.NVMLError, self._nvml.nvmlSystemGetProcessName, pid)
            return Path(_text(name)).name if name else f"pid {pid}"

    # --- errors of the hardware --------------------------------------------------------------------------------------

    def _listen(self, card: "_Questions", uuid: str) -> None:
        if self._events is not None and uuid not in self._listened:
            self._listened.add(uuid)  # one that cannot tell is not asked again
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlDeviceRegisterEvents(card.handle, self._nvml.nvmlEventTypeXidCriticalError, self._events)

    def _take_events(self) -> None:
        nvml = self._nvml
        for _ in range(_EVENTS_MAX if self._listened else 0):
            event = _told(nvml.NVMLError, nvml.nvmlEventSetWait_v2, self._events, 0)
            if event is None:
                return
            uuid = _told(nvml.NVMLError, nvml.nvmlDeviceGetUUID, event.device)
            if uuid is not None and event.eventData not in _XIDS_OF_PROGRAMS:
                self._xids[_text(uuid)] = (event.eventData, self._xids.get(_text(uuid), (0, 0))[1] + 1)


class _Questions:
    """One device while it is read: what it does not tell is None, and `fault` says whether it is gone."""

    def __init__(self, nvml: Any, find: Callable[..., Any], *arguments: Any) -> None:
        self._nvml = nvml
        self._faults = {
            nvml.NVML_ERROR_GPU_IS_LOST: GpuFault.LOST,
            nvml.NVML_ERROR_RESET_REQUIRED: GpuFault.NEEDS_RESET,
        }
        self.fault: GpuFault | None = None
        self.handle = self._try(find, *arguments)

    def ask(self, question: str, *arguments: Any) -> Any:
        if self.fault is not None:
            return None
        answer = self._try(getattr(self._nvml, question), self.handle, *arguments)
        return _text(answer) if isinstance(answer, bytes) else answer

    def _try(self, question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(*arguments)
        except self._nvml.NVMLError as error:
            self.fault = self._faults.get(error.value)
            return None


def throttle_names(bits: int) -> tuple[str, ...]:
    return tuple(name for bit, name in THROTTLES.items() if bits & bit)


def _told(error: type[Exception], question: Callable[..., T], *arguments: Any) -> T | None:
    try:
        return question(*arguments)
    except error:
        return None


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / _MILLIWATTS


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
