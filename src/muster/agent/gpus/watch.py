"""Whether a GPU is fit for work: what takes it out of service, after how long, and when it is back. Pure."""

from enum import StrEnum

from msgspec import Struct

from muster.domain.gpu import Gpu, GpuFault

_HEAT = frozenset({"thermal", "hardware_thermal"})


class Trouble(StrEnum):
    MISSING = "missing"
    LOST = "lost"
    NEEDS_RESET = "needs_reset"
    SILENT = "silent"
    MEMORY_ERRORS = "memory_errors"
    HARDWARE_ERROR = "hardware_error"
    HEAT = "heat"


class Patience(Struct, frozen=True):
    """Out once it lasts for `out_s`, and back after `back_s` without it."""

    out_s: float
    back_s: float


PATIENCE = {
    Trouble.MISSING: Patience(0, 30),
    Trouble.LOST: Patience(0, 30),
    Trouble.NEEDS_RESET: Patience(0, 30),
    Trouble.SILENT: Patience(5, 30),  # one slow answer is none yet
    Trouble.MEMORY_ERRORS: Patience(0, 600),  # these two are moments, not states: quiet for so long it may try again
    Trouble.HARDWARE_ERROR: Patience(0, 600),
    Trouble.HEAT: Patience(20, 60),  # short peaks are usual
}
_FAULTS = {
    GpuFault.LOST: (Trouble.LOST, "it fell off the bus"),
    GpuFault.NEEDS_RESET: (Trouble.NEEDS_RESET, "it needs a reset"),
    GpuFault.SILENT: (Trouble.SILENT, "its driver does not answer"),
}


class GpuWatch:
    """Judges one GPU, reading by reading."""

    def __init__(self) -> None:
        self._out: dict[Trouble, str] = {}
        self._since_s: dict[Trouble, float] = {}
        self._last_s: dict[Trouble, float] = {}
        self._ecc_uncorrected: int | None = None
        self._xids: int | None = None

    def see(self, gpu: Gpu | None, now_s: float) -> str | None:
        """Return why it is out of service, if it is; None as `gpu`: it is not there any more."""
        present = self._troubles(gpu)
        for trouble, patience in PATIENCE.items():
            if trouble in present:
                self._last_s[trouble] = now_s
                if now_s - self._since_s.setdefault(trouble, now_s) >= patience.out_s:
                    self._out.setdefault(trouble, present[trouble])
            elif trouble not in self._out or now_s - self._last_s[trouble] >= patience.back_s:
                self._out.pop(trouble, None)
                self._since_s.pop(trouble, None)
        return "; ".join(self._out[trouble] for trouble in PATIENCE if trouble in self._out) or None

    def _troubles(self, gpu: Gpu | None) -> dict[Trouble, str]:
        if gpu is None:
            return {Trouble.MISSING: "it is not seen any more"}
        if gpu.fault is not None:
            return dict([_FAULTS[gpu.fault]])
        found = {}
        if (errors := self._new_memory_errors(gpu)) > 0:
            found[Trouble.MEMORY_ERRORS] = f"it had {errors} memory error(s) that could not be corrected"
        if self._has_new_xid(gpu):
            found[Trouble.HARDWARE_ERROR] = f"its hardware reported an error (XID {gpu.xid})"
        if not _HEAT.isdisjoint(gpu.throttled or ()):
            at = "" if gpu.temperature_c is None else f" at {gpu.temperature_c:g} °C"
            found[Trouble.HEAT] = f"it is too hot: its clocks are held down{at}"
        return found

    def _new_memory_errors(self, gpu: Gpu) -> int:
        """Those from before we came are past; a count that falls begins anew, with a new driver."""
        if gpu.ecc_uncorrected is None:
            return 0
        before, self._ecc_uncorrected = self._ecc_uncorrected, gpu.ecc_uncorrected
        return 0 if before is None else gpu.ecc_uncorrected - before

    def _has_new_xid(self, gpu: Gpu) -> bool:
        before, self._xids = self._xids, gpu.xids
        return gpu.xids not in {0, before}
