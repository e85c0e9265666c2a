"""How each service instance is doing: its processes read and added up. One that is dead or hidden costs only itself.

Where an instance has a cgroup that one says which processes belong to it, and counts the time of those that ended, too.
Otherwise they are the first process, those below it and those of its session.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from msgspec import Struct

from muster.agent.services.cgroups import Cgroups, pids_in
from muster.agent.services.keeper import (
    PROC,
    Process,
    Table,
    children_of,
    read_kernel_file,
    read_process,
    read_table,
    with_descendants,
)
from muster.domain.process import ProcessFigures
from muster.errors import NotFound, UpstreamFailed

_MB = 1_048_576
_APART_S = 0.25  # closer readings say little: the kernel counts time in ticks
_KIN_S = 5.0  # all processes are read no more often, to see who is whose child where no cgroup tells it
_SETTLED_S = 60  # by then a shell has become the program that it was to start
_MODEL_OPTION = "--model"


class Watched(Struct, frozen=True, kw_only=True):
    """An instance that is known to run as `pid`."""

    name: str
    group: str
    pid: int
    cgroup: Path | None = None


class _Counters(Struct, frozen=True, kw_only=True):
    """What only grows; None where it could not be read."""

    at_s: float
    cpu_s: float | None
    read_bytes: int | None
    write_bytes: int | None


class _Rates(Struct, frozen=True, kw_only=True):
    cpu_percent: float | None = None
    read_bytes_s: int | None = None
    write_bytes_s: int | None = None


class _Known(Struct):
    """What is kept of a process between two readings."""

    started: float
    counters: _Counters
    rates: _Rates = _Rates()
    model: str | None = None
    processes: int = 0


class ProcessMonitor:
    """Rates are those since the reading before, so one monitor is asked again and again, by one thread at a time."""

    def __init__(
        self, cgroups: Cgroups | None = None, proc: Path = PROC, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._cgroups = cgroups
        self._proc = proc
        self._now_s = now_s
        self._known: dict[tuple[str, str, int], _Known] = {}
        self._kin: _Kin | None = None

    def collect_all(self) -> list[ProcessFigures]:
        """Return the figures of all that run in the tree of cgroups."""
        return self._collect([] if self._cgroups is None else self._cgroups.instances())

    def collect_group(self, group: str) -> list[ProcessFigures]:
        known = [] if self._cgroups is None else self._cgroups.instances()
        return self._collect([each for each in known if each[0] == group])

    def collect(self, group: str, instance: str) -> ProcessFigures:
        """Raise NotFound when there is no such instance, UpstreamFailed when nothing of it runs."""
        if self._cgroups is None or (group, instance) not in self._cgroups.instances():
            raise NotFound(f"no instance {instance!r} in the group {group!r}")
        found = self._collect([(group, instance)])
        if not found:
            raise UpstreamFailed(f"no process of {group}/{instance} runs")
        return found[0]

    def read(self, watched: Sequence[Watched]) -> tuple[ProcessFigures, ...]:
        """Return the figures of those that live, and forget the others."""
        kin = None if all(each.cgroup for each in watched) else self._kin_of(watched)
        found = [figures for each in watched if (figures := self._read(each, kin)) is not None]
        kept = {(each.group, each.name, each.pid) for each in watched}
        self._known = {key: known for key, known in self._known.items() if key in kept}
        return tuple(found)

    def _kin_of(self, watched: Sequence[Watched]) -> "_Kin":
        """Read all processes when that is some time ago, or somebody is new; else only those that matter to us."""
        now_s, kin = self._now_s(), self._kin
        if kin is None or not 0 <= now_s - kin.at_s < _KIN_S or any(each.pid not in kin.table for each in watched):
            kin = self._kin = _Kin(read_table(self._proc), now_s)
        else:
            kin.look_again([each.pid for each in watched], lambda pid: read_process(pid, self._proc))
        return kin

    def _collect(self, instances: Iterable[tuple[str, str]]) -> list[ProcessFigures]:
        if self._cgroups is None:
            return []
        found = []
        for group, name in instances:
            processes = self._alive(self._cgroups.pids(group, name))
            if processes:
                path = self._cgroups.path(group, name)
                first = _first(processes)
                found.append(self._figures(Watched(name=name, group=group, pid=first.pid, cgroup=path), processes))
        return found

    def _read(self, watched: Watched, kin: "_Kin | None") -> ProcessFigures | None:
        if watched.cgroup is not None:
            processes = self._alive({*pids_in(watched.cgroup), watched.pid})
        elif kin is not None and kin.table:
            processes = kin.of(watched.pid)
        else:
            return self._read_elsewhere(watched)
        if all(process.pid != watched.pid for process in processes):
            return None
        return self._figures(watched, processes)

    def _alive(self, pids: Iterable[int]) -> list[Process]:
        return [process for pid in pids if (process := read_process(pid, self._proc)) is not None]

    def _figures(self, watched: Watched, processes: Sequence[Process]) -> ProcessFigures:
        first = next(process for process in processes if process.pid == watched.pid)
        io = [self._io_bytes(process.pid) for process in processes]
        known = self._count(
            watched,
            first.started,
            _Counters(
                at_s=self._now_s(),
                cpu_s=_cgroup_cpu_s(watched.cgroup) or sum(process.cpu_ticks for process in processes) / _TICKS_PER_S,
                read_bytes=_sum(part[0] for part in io),
                write_bytes=_sum(part[1] for part in io),
            ),
        )
        uptime_s = max(0, int(time.clock_gettime(time.CLOCK_BOOTTIME) - first.started / _TICKS_PER_S))
        if known.model is None and (uptime_s < _SETTLED_S or len(processes) != known.processes):
            known.model = self._model(sorted(processes, key=lambda process: process is not first))
        known.processes = len(processes)
        return ProcessFigures(
            name=watched.name,
            group=watched.group,
            pid=watched.pid,
            processes=len(processes),
            cpu_percent=known.rates.cpu_percent,
            rss_mb=round(sum(process.rss_pages for process in processes) * _PAGE_BYTES / _MB, 1),
            read_bytes_s=known.rates.read_bytes_s,
            write_bytes_s=known.rates.write_bytes_s,
            uptime_s=uptime_s,
            model=known.model,
        )

    def _read_elsewhere(self, watched: Watched) -> ProcessFigures | None:
        """Read by psutil where there is no /proc."""
        try:
            first = psutil.Process(watched.pid)
            processes = [first, *first.children(recursive=True)]
            started_s = first.create_time()
        except psutil.Error:
            return None
        memory, cpu = [], []
        for process in processes:
            with suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                memory.append(process.memory_info().rss)
                cpu.append(times.user + times.system)
        counters = _Counters(at_s=self._now_s(), cpu_s=sum(cpu) if cpu else None, read_bytes=None, write_bytes=None)
        known = self._count(watched, started_s, counters)
        with suppress(psutil.Error):
            known.model = known.model or model_in(first.cmdline())
        return ProcessFigures(
            name=watched.name,
            group=watched.group,
            pid=watched.pid,
            processes=len(processes),
            cpu_percent=known.rates.cpu_percent,
            rss_mb=round(sum(memory) / _MB, 1) if memory else None,
            uptime_s=max(0, int(time.time() - started_s)),
            model=known.model,
        )

    def _count(self, watched: Watched, started: float, counters: _Counters) -> _Known:
        """Compare with the reading before, if it was of the same process; too close after that one, it still holds."""
        key = watched.group, watched.name, watched.pid
        known = self._known.get(key)
        if known is None or known.started != started:
            known = self._known[key] = _Known(started, counters)
        elif counters.at_s - known.counters.at_s >= _APART_S:
            known.counters, known.rates = counters, _rates(known.counters, counters)
        return known

    def _io_bytes(self, pid: int) -> tuple[int | None, int | None]:
        """Return what it has read from and written to disks; the system may keep that to itself."""
        try:
            lines = read_kernel_file(f"{self._proc}/{pid}/io").splitlines()
            counts = dict(line.split(b": ") for line in lines)
            return int(counts[b"read_bytes"]), int(counts[b"write_bytes"])
        except (OSError, ValueError, KeyError):
            return None, None

    def _model(self, processes: Iterable[Process]) -> str | None:
        """Return what the first of them names that names one: a shell may stand before the engine."""
        for process in processes:
            with suppress(OSError):
                line = read_kernel_file(f"{self._proc}/{process.pid}/cmdline").decode(errors="replace")
                if _MODEL_OPTION in line and (model := model_in(line.split("\0"))) is not None:
                    return model
        return None


def model_in(words: Sequence[str]) -> str | None:
    """Return X of `--model X` or `--model=X`."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == _MODEL_OPTION:
            return following or None
        if word.startswith(f"{_MODEL_OPTION}="):
            return word.partition("=")[2] or None
    return None


def _rates(before: _Counters, now: _Counters) -> _Rates:
    elapsed_s = now.at_s - before.at_s

    def per_s(was: float | None, since: float | None) -> float | None:
        # A sum that fell has lost a process, and with it what that one did: unknown for this once.
        return None if was is None or since is None or since < was else (since - was) / elapsed_s

    cpu, read, write = (
        per_s(before.cpu_s, now.cpu_s),
        per_s(before.read_bytes, now.read_bytes),
        per_s(before.write_bytes, now.write_bytes),
    )
    return _Rates(
        cpu_percent=None if cpu is None else round(100 * cpu, 1),
        read_bytes_s=None if read is None else round(read),
        write_bytes_s=None if write is None else round(write),
    )


def _first(processes: Sequence[Process]) -> Process:
    """Return the one that the others come from."""
    pids = {process.pid for process in processes}
    return min(processes, key=lambda process: (process.parent in pids, process.started, process.pid))


class _Kin:
    """All processes, and which of them belong together."""

    def __init__(self, table: Table, at_s: float) -> None:
        self.table = table
        self.at_s = at_s
        self._children = children_of(table)
        self._sessions: dict[int, list[int]] = {}
        for process in table.values():
            self._sessions.setdefault(process.session, []).append(process.pid)

    def of(self, pid: int) -> list[Process]:
        """Return it, those below it, and those of its session."""
        roots = {pid, *self._sessions.get(pid, [])} & self.table.keys()
        return [self.table[each] for each in set(with_descendants(roots, self._children)) if each in self.table]

    def look_again(self, pids: Iterable[int], read: Callable[[int], Process | None]) -> None:
        """Read those that belong to these anew; who is gone, or another by now, belongs to nobody."""
        for process in [process for pid in pids for process in self.of(pid)]:
            now = read(process.pid)
            if now is not None and now.started == process.started:
                self.table[process.pid] = now
            else:
                self.table.pop(process.pid, None)


def _cgroup_cpu_s(cgroup: Path | None) -> float | None:
    if cgroup is not None:
        with suppress(OSError, ValueError, IndexError):
            return int(read_kernel_file(f"{cgroup}/cpu.stat").split(maxsplit=2)[1]) / 1e6  # its first line: usage_usec
    return None


def _sum(parts: Iterable[int | None]) -> int | None:
    known = list(parts)
    return None if None in known else sum(part for part in known if part is not None)


_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
