"""NVIDIA's GPUs by `nvidia-smi`, where the library cannot be loaded: a process for each reading, with a deadline."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
from msgspec.structs import replace

from muster.clock import Clock
from muster.devices.bounded import BoundedProgram
from muster.devices.nvml_reader import throttle_names
from muster.domain.gpu import Gpu, GpuFault, GpuOwner
from muster.errors import MusterError, UpstreamFailed, UpstreamTimeout
from muster.system import SystemClock

log = structlog.get_logger()

_BASIC = (
    "index",
    "name",
    "uuid",
    "pci.bus_id",
    "driver_version",
    "memory.total",
    "memory.used",
    "utilization.gpu",
    "temperature.gpu",
    "power.draw",
)
_MORE = (  # what drivers of some age or kind do not know
    "power.limit",
    "clocks.sm",
    "clocks_throttle_reasons.active",
    "ecc.errors.corrected.volatile.total",
    "ecc.errors.uncorrected.volatile.total",
)
# The name comes last: it may have commas. There is no field for the use of the processors.
_PROCESS = ("gpu_uuid", "pid", "used_gpu_memory", "process_name")
_FAULTS = {"gpu is lost": GpuFault.LOST, "gpu requires reset": GpuFault.NEEDS_RESET}


class NvidiaSmi:
    def __init__(self, program: str = "nvidia-smi", *, timeout_s: float = 4.0, clock: Clock | None = None) -> None:
        self._name = program
        self._program = BoundedProgram(timeout_s, clock or SystemClock())
        self._fields: tuple[str, ...] = _BASIC + _MORE
        self._known: tuple[Gpu, ...] = ()
        self._said: str | None = None

    async def read(self) -> tuple[Gpu, ...] | None:
        """Return None where there is no such program, or it finds no driver; one that hangs from the start raises."""
        path = shutil.which(self._name)
        if path is None:
            self._known = ()
            return None
        try:
            gpus = await self._read_gpus(path)
        except MusterError as error:
            return self._unread(error)
        self._said = None
        owners = await self._read_owners(path)
        self._known = gpus if owners is None else tuple(replace(gpu, owners=owners.get(gpu.uuid, ())) for gpu in gpus)
        return self._known

    async def _read_gpus(self, path: str) -> tuple[Gpu, ...]:
        try:
            return parse_gpus(await self._query(path, "gpu", self._fields), self._fields)
        except UpstreamFailed as error:
            if self._fields == _BASIC or "not a valid field" not in error.message:
                raise
        self._fields = _BASIC
        return parse_gpus(await self._query(path, "gpu", _BASIC), _BASIC)

    async def _read_owners(self, path: str) -> dict[str | None, tuple[GpuOwner, ...]] | None:
        try:
            return parse_owners(await self._query(path, "compute-apps", _PROCESS))
        except MusterError as error:
            self._say("gpu_processes_unreadable", error.message)
            return None

    async def _query(self, path: str, what: str, fields: Sequence[str]) -> str:
        return await self._program.run(path, f"--query-{what}={','.join(fields)}", "--format=csv,noheader,nounits")

    def _unread(self, error: MusterError) -> tuple[Gpu, ...] | None:
        self._say("gpus_unreadable", error.message)
        if self._known:
            return tuple(gpu.without_figures(GpuFault.SILENT) for gpu in self._known)
        if isinstance(error, UpstreamTimeout):
            raise error
        return None

    def _say(self, event: str, why: str) -> None:
        """Log a reason once, until it changes or is gone."""
        if why != self._said:
            self._said = why
            log.info(event, reason=why)


def parse_gpus(text: str, fields: Sequence[str]) -> tuple[Gpu, ...]:
    return tuple(_gpu(dict(zip(fields, row, strict=True))) for row in _rows(text, len(fields)))


def parse_owners(text: str) -> dict[str | None, tuple[GpuOwner, ...]]:
    """Return the processes of each GPU, by its uuid: memory is told for each pid on each GPU."""
    owners: dict[str | None, tuple[GpuOwner, ...]] = {}
    for uuid, pid, used_mb, name in _rows(text, len(_PROCESS)):
        if pid.isdigit():
            process = GpuOwner(name=Path(name).name or f"pid {pid}", pids=(int(pid),), memory_mb=_whole(used_mb))
            owners[uuid] = (*owners.get(uuid, ()), process)
    return owners


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        row = [cell.strip() for cell in line.split(",", columns - 1)]
        if len(row) == columns:  # else a warning
            yield row


def _gpu(row: dict[str, str]) -> Gpu:
    throttles = row.get("clocks_throttle_reasons.active", "")
    return Gpu(
        index=int(row["index"]),
        name=_known(row["name"]) or "unknown",
        uuid=_known(row["uuid"]),
        pci=(_known(row["pci.bus_id"]) or "").lower() or None,
        driver=_known(row["driver_version"]),
        memory_total_mb=_whole(row["memory.total"]),
        memory_used_mb=_whole(row["memory.used"]),
        utilization_percent=_number(row["utilization.gpu"]),
        temperature_c=_number(row["temperature.gpu"]),
        power_w=_number(row["power.draw"]),
        power_limit_w=_number(row.get("power.limit", "")),
        clock_mhz=_whole(row.get("clocks.sm", "")),
        throttled=throttle_names(int(throttles, 16)) if throttles.startswith("0x") else None,
        ecc_corrected=_whole(row.get("ecc.errors.corrected.volatile.total", "")),
        ecc_uncorrected=_whole(row.get("ecc.errors.uncorrected.volatile.total", "")),
        fault=next((_FAULTS[word] for cell in row.values() if (word := cell.strip("[]").lower()) in _FAULTS), None),
    )


def _known(cell: str) -> str | None:
    """`[N/A]`, `[Not Supported]`, `[Unknown Error]` and their kin are no figures."""
    return None if not cell or cell.startswith("[") or cell in {"N/A", "Not Supported"} else cell


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _whole(cell: str) -> int | None:
    number = _number(cell)
    return None if number is None else round(number)
