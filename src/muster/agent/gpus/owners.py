"""Whose processes use a GPU: a service's by pid tree, process group, cgroup or its port; the others are from outside.

The join is pure; `trace_process` reads what it needs from the system.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from msgspec import Struct

from muster.agent.identity import is_loopback
from muster.domain.gpu import GpuOwner
from muster.domain.service import Service

_PROC = Path("/proc")
_GENERATIONS_MAX = 32
_OWNERS_MAX = 16  # told one by one; a heartbeat has a bound
_SLICE = "muster.slice"


class Trace(Struct, frozen=True):
    """`pids` are the process, those above it, and the leaders of its group and session, who stay when parents die.

    `ports` are those on which they listen.
    """

    pids: frozenset[int] = frozenset()
    cgroup: str = ""
    ports: frozenset[int] = frozenset()


TraceProcess = Callable[[int], Trace]


class Traces:
    """Traces of those who use GPUs, each made once: who is above a process when it is first seen started it.

    They are made again when other ports count: a service that is attached listens by then.
    """

    def __init__(self, trace: TraceProcess) -> None:
        self._trace = trace
        self._ports: frozenset[int] = frozenset()
        self._kept: dict[tuple[int, str], Trace] = {}
        self._asked: dict[tuple[int, str], Trace] = {}

    def of(self, process: GpuOwner) -> Trace:
        key = process.pids[0], process.name  # a number that is given again has seldom the same name as well
        trace = self._asked[key] = self._kept.get(key) or self._trace(process.pids[0])
        return trace

    def look_for(self, ports: frozenset[int]) -> None:
        if ports != self._ports:
            self._ports = ports
            self._kept = {}

    def forget_others(self) -> None:
        """Forget those who were not asked for since the last time."""
        self._kept, self._asked = self._asked, {}


class Services:
    """The services of the node by what their processes are known by."""

    def __init__(self, services: Sequence[Service]) -> None:
        self.by_pid = {service.pid: service.name for service in services if service.pid is not None}
        self.by_port = ports_of(services)
        self.names = {service.name for service in services}


def join_owners(
    processes: Iterable[GpuOwner], services: Services, trace: Callable[[GpuOwner], Trace]
) -> tuple[GpuOwner, ...]:
    """Return one owner for each service and for each name from outside, those with most memory first."""
    shares: dict[tuple[bool, str], list[GpuOwner]] = {}
    for process in processes:
        service = _service_of(trace(process), services)
        shares.setdefault((service is not None, service or process.name), []).append(process)
    owners = [_sum(name, share, service=service) for (service, name), share in shares.items()]
    owners.sort(key=lambda owner: (-(owner.memory_mb or 0), owner.name))
    rest = owners[_OWNERS_MAX:]
    if not rest:
        return tuple(owners)
    return (*owners[:_OWNERS_MAX], _sum(f"{len(rest)} others", rest, service=False))


def ports_of(services: Iterable[Service]) -> dict[int, str]:
    """Return the services that run on this machine without us, by their ports: nobody told us their pids."""
    found = {}
    for service in services:
        parts = urlsplit(service.url or "")
        if service.pid is None and not service.managed and parts.port and is_loopback(parts.hostname or ""):
            found[parts.port] = service.name
    return found


def _service_of(trace: Trace, services: Services) -> str | None:
    for pid in trace.pids & services.by_pid.keys():
        return services.by_pid[pid]
    for port in trace.ports & services.by_port.keys():
        return services.by_port[port]
    parts = trace.cgroup.split("/")
    if _SLICE in parts:  # muster.slice/GROUP/INSTANCE, and what the instance made below it
        return next((part for part in parts[parts.index(_SLICE) + 1 :] if part in services.names), None)
    return None


def _sum(name: str, share: Sequence[GpuOwner], *, service: bool) -> GpuOwner:
    """Add up. A sum with an unknown part is unknown; but of the load, who is not told of did nothing."""
    memory = [part.memory_mb for part in share if part.memory_mb is not None]
    load = [part.utilization_percent for part in share if part.utilization_percent is not None]
    return GpuOwner(
        name=name,
        pids=() if service else tuple(pid for part in share for pid in part.pids),  # a service tells its own
        memory_mb=sum(memory) if len(memory) == len(share) else None,
        utilization_percent=min(100.0, round(sum(load), 1)) if load else None,
        service=service,
    )


def trace_process(pid: int) -> Trace:
    """Return what can be seen: a process may end meanwhile, or be none of this pid namespace."""
    if not _PROC.joinpath("self").exists():
        return _trace_elsewhere(pid)
    pids: set[int] = set()
    at = pid
    for _ in range(_GENERATIONS_MAX):
        if at <= 1 or (stat := _read(at, "stat")) is None:
            break
        # The name before the last parenthesis may hold anything, blanks and parentheses too.
        parent, group, session = (int(field) for field in stat.rpartition(")")[2].split()[1:4])
        pids |= {at, group, session}
        at = parent
    cgroups = (_read(pid, "cgroup") or "").splitlines()
    cgroup = next((line[3:] for line in cgroups if line.startswith("0::")), "")
    return Trace(frozenset(pids), cgroup, _ports(pids))


def _read(pid: int, name: str) -> str | None:
    try:
        return _PROC.joinpath(str(pid), name).read_text(errors="replace")
    except OSError:
        return None


def _ports(pids: Iterable[int]) -> frozenset[int]:
    """Return where they listen, as far as we may see."""
    found: set[int] = set()
    for pid in pids:
        with suppress(psutil.Error):
            connections = psutil.Process(pid).net_connections("tcp")
            found |= {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    return frozenset(found)


def _trace_elsewhere(pid: int) -> Trace:
    try:
        process = psutil.Process(pid)
        pids = frozenset({pid, *(parent.pid for parent in process.parents())})
    except psutil.Error:
        return Trace()
    return Trace(pids, ports=_ports(pids))
