"""AMD's GPUs by `rocm-smi --json`: a process for each reading, with a deadline.

The names of its keys differ between releases in case and sensor, so they are found by their beginnings.
"""

import shutil
from typing import Any

import structlog
from msgspec import DecodeError, json

from muster.clock import Clock
from muster.devices.bounded import BoundedProgram
from muster.domain.gpu import Gpu, GpuFault, GpuOwner
from muster.errors import MusterError, UpstreamTimeout
from muster.system import SystemClock

log = structlog.get_logger()

_MB = 1_048_576
_QUESTIONS = (
    "--showproductname", "--showuniqueid", "--showbus", "--showdriverversion", "--showmeminfo", "vram", "--showuse",
    "--showtemp", "--showpower", "--showpids", "--json",
)  # fmt: skip


class RocmSmi:
    def __init__(self, program: str = "rocm-smi", *, timeout_s: float = 4.0, clock: Clock | None = None) -> None:
        self._name = program
        self._program = BoundedProgram(timeout_s, clock or SystemClock())
        self._known: tuple[Gpu, ...] = ()
        self._said: str | None = None

    async def read(self) -> tuple[Gpu, ...] | None:
        """Return None where there is no such program, or it finds no driver; one that hangs from the start raises."""
        path = shutil.which(self._name)
        if path is None:
            self._known = ()
            return None
        try:
            self._known = parse(await self._program.run(path, *_QUESTIONS))
        except (MusterError, DecodeError) as error:
            return self._unread(error)
        self._said = None
        return self._known

    def _unread(self, error: MusterError | DecodeError) -> tuple[Gpu, ...] | None:
        if str(error) != self._said:
            self._said = str(error)
            log.info("gpus_unreadable", reason=self._said)
        if self._known:
            return tuple(gpu.without_figures(GpuFault.SILENT) for gpu in self._known)
        if isinstance(error, UpstreamTimeout):
            raise error
        return None


def parse(text: str) -> tuple[Gpu, ...]:
    """Read the object in what it wrote: warnings may stand before it."""
    start = text.find("{")
    said: dict[str, Any] = json.decode(text[start:] if start >= 0 else "{}", type=dict[str, Any])
    system = said.get("system") or {}
    cards = sorted((int(name[4:]), card) for name, card in said.items() if name[4:].isdigit() and name[:4] == "card")
    owners = _owners(system) if len(cards) == 1 else None  # it does not say on which card
    return tuple(_gpu(index, card, system, owners) for index, (_, card) in enumerate(cards))


def _gpu(index: int, card: dict[str, Any], system: dict[str, Any], owners: tuple[GpuOwner, ...] | None) -> Gpu:
    total, used = _number(card, "vram total memory"), _number(card, "vram total used")
    unique = _find(card, "unique id")
    return Gpu(
        index=index,
        name=_find(card, "card series") or _find(card, "card model") or _find(card, "device name") or "unknown",
        uuid=None if unique is None else f"AMD-{unique}",
        pci=(_find(card, "pci bus") or "").lower() or None,
        driver=_find(system, "driver version"),
        memory_total_mb=None if total is None else int(total) // _MB,
        memory_used_mb=None if used is None else int(used) // _MB,
        utilization_percent=_number(card, "gpu use"),
        temperature_c=_number(card, "temperature (sensor junction", "temperature (sensor edge"),
        power_w=_number(card, "average graphics package power", "current socket graphics package power"),
        owners=owners,
    )


def _owners(system: dict[str, Any]) -> tuple[GpuOwner, ...]:
    """Find the processes: `"PID123": "name, GPUs, bytes of memory, ..."`."""
    found = []
    for key, value in system.items():
        pid = key.removeprefix("PID")
        if key != pid and pid.isdigit():
            name, _, used = [*(part.strip() for part in str(value).split(",")), "", ""][:3]
            memory_mb = int(used) // _MB if used.isdigit() else None
            found.append(GpuOwner(name=name or f"pid {pid}", pids=(int(pid),), memory_mb=memory_mb))
    return tuple(found)


def _find(said: dict[str, Any], *beginnings: str) -> str | None:
    for beginning in beginnings:
        for key, value in said.items():
            if key.lower().startswith(beginning) and str(value) not in {"", "N/A", "None"}:
                return str(value)
    return None


def _number(said: dict[str, Any], *beginnings: str) -> float | None:
    try:
        return float(_find(said, *beginnings) or "")
    except ValueError:
        return None
