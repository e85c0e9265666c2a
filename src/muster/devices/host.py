"""Memory, processors and disk of this machine."""

from pathlib import Path

import psutil

from muster.domain.node import Resources

_MB = 1_048_576


class PsutilHost:
    """`data_dir` says which disk is meant. How busy the processors are is known from the second reading on."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._cpu_times_s: tuple[float, float] | None = None  # busy and in all
        self._cpu_percent: float | None = None

    def read(self) -> Resources:
        memory_total_mb, memory_used_mb = _memory_mb()
        disk_total_mb, disk_free_mb = self._disk_mb()
        return Resources(
            memory_total_mb=memory_total_mb,
            memory_used_mb=memory_used_mb,
            cpu_percent=self._read_cpu_percent(),
            disk_total_mb=disk_total_mb,
            disk_free_mb=disk_free_mb,
        )

    def _read_cpu_percent(self) -> float | None:
        """Compare with the reading before; within one tick of the kernel's clock that one still holds."""
        before, now = self._cpu_times_s, _cpu_times_s()
        if now is None:
            return None
        if before is not None and now[1] > before[1]:
            share = (now[0] - before[0]) / (now[1] - before[1])
            self._cpu_percent = round(100 * min(1.0, max(0.0, share)), 1)
        self._cpu_times_s = now
        return self._cpu_percent

    def _disk_mb(self) -> tuple[int | None, int | None]:
        try:
            usage = psutil.disk_usage(str(self._data_dir))
        except OSError:
            return None, None
        return usage.total // _MB, usage.free // _MB


def _memory_mb() -> tuple[int | None, int | None]:
    try:
        memory = psutil.virtual_memory()
    except (OSError, psutil.Error):
        return None, None
    return memory.total // _MB, (memory.total - memory.available) // _MB


def _cpu_times_s() -> tuple[float, float] | None:
    try:
        times = psutil.cpu_times()
    except (OSError, psutil.Error):
        return None
    # Linux counts the time of guests within that of their user.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total


def own_addresses() -> frozenset[str]:
    """Return the addresses of this machine, as text, and the name for itself."""
    known = {entry.address.split("%")[0] for entries in psutil.net_if_addrs().values() for entry in entries}
    return frozenset(known | {"127.0.0.1", "::1", "localhost"})
