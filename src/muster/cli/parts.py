"""What `muster status` lists: every part of what `muster up` runs, with its process, its address and since when."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

from muster.cli.machine_part import MachinePart, process_of
from muster.cli.running import Running

_ALWAYS = ("store", "control plane", "gateway", "monitor", "machine", "event log")
_RUNNING, _STOPPED = "running", "stopped"


class Part(Struct, frozen=True, kw_only=True):
    name: str
    status: str
    pid: int | None = None
    address: str | None = None
    started_at_ms: int | None = None
    log: str | None = None
    about: str | None = None  # why it is as it is


def stopped_parts() -> list[Part]:
    return [Part(name=name, status=_STOPPED) for name in _ALWAYS]


def running_parts(
    running: Running, machine: MachinePart | None, node: Mapping[str, Any] | None, data_dir: Path
) -> list[Part]:
    """`node` is this machine's own as the control plane has it; None when that cannot be asked or has none."""
    return [
        _store(running, data_dir),
        _of_the_plane(running, "control plane", running.url),
        _of_the_plane(running, "gateway", f"{running.url}/v1"),
        _of_the_plane(running, "monitor", f"{running.url}/"),
        _machine(running, machine, node),
        _event_log(running),
        *_services(node),
    ]


def _of_the_plane(running: Running, name: str, address: str) -> Part:
    """One process serves them all."""
    return Part(
        name=name,
        status=_RUNNING,
        pid=running.pid,
        address=address,
        started_at_ms=running.started_at_ms,
        log=running.log,
    )


def _store(running: Running, data_dir: Path) -> Part:
    pid = running.store_pid
    runs = pid is None or psutil.pid_exists(pid)
    log = data_dir / "valkey" / "valkey.log"
    return Part(
        name="store",
        status=_RUNNING if runs else _STOPPED,
        pid=pid,
        address=running.store,
        started_at_ms=running.started_at_ms,
        log=str(log) if pid is not None else None,
        about="outside of Muster" if pid is None else None,
    )


def _machine(running: Running, machine: MachinePart | None, node: Mapping[str, Any] | None) -> Part:
    """Tell of the process that a profile's machine has; without one the agent is part of the control plane's."""
    name = machine.machine_id if machine else node["node_id"] if node else ""
    title = f"machine {name}".rstrip()
    phase = node["phase"] if node else None
    reason = node["reason"] if node else None
    if machine is None:
        return Part(
            name=title,
            status=_RUNNING if node else _STOPPED,
            pid=running.pid if node else None,
            address=node["address"] if node else None,
            started_at_ms=running.started_at_ms if node else None,
            log=running.log,
            about=reason or phase,
        )
    runs = process_of(machine) is not None
    return Part(
        name=title,
        status=_RUNNING if runs else _STOPPED,
        pid=machine.pid if runs else None,
        address=node["address"] if node else None,
        started_at_ms=machine.started_at_ms if runs else None,
        log=machine.log,
        about=(reason or phase) if runs else machine.ended or "it is started again",
    )


def _event_log(running: Running) -> Part:
    if running.event_log is None:
        return Part(name="event log", status=_STOPPED, about="not asked for")
    return Part(
        name="event log",
        status=_RUNNING,
        pid=running.pid,
        address=f"{running.url}/api/events/monitor",
        started_at_ms=running.started_at_ms,
        log=running.event_log,
    )


def _services(node: Mapping[str, Any] | None) -> Iterator[Part]:
    for service in node["services"] if node else ():
        yield Part(
            name=service["name"],
            status=service["status"],
            pid=service["pid"],
            address=service["url"],
            started_at_ms=service["started_at_ms"],
            about=service["error"],
        )
