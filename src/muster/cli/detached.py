"""Muster in the background: started in a session of its own, watched until it answers, stopped by its pid."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

from muster.cli.client import Client, Refused, Unreachable
from muster.cli.machine_part import MachinePart, find_machine
from muster.cli.running import Running, ends_within, find_running, process_of
from muster.domain.node import Phase
from muster.errors import SetupError
from muster.settings import Settings

START_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 600.0  # a model may have to be fetched over a slow line
STOP_MARGIN_S = 15.0  # beyond the time that running work is given: services, store, log
_LOOK_EVERY_S = 0.1
_LOG_LINES = 15
_LOG_BYTES_MAX = 16_777_216  # a larger one makes room for a new one at the next start
_COMING_UP = frozenset({Phase.STARTING, Phase.CONFIGURING})


def start(settings: Settings, flags: Mapping[str, str | None]) -> Running:
    """Start `muster up` in the background and return once it listens; SetupError shows the end of its log."""
    log = settings.data_path / "logs" / "muster.log"
    before_bytes = log.stat().st_size if log.exists() else 0
    child = _spawn(log, {f"MUSTER_{name.upper()}": value for name, value in flags.items() if value is not None})
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        running = find_running(settings.data_path)
        if running and running.pid == child.pid and _answers(running, settings):
            return running
        if child.poll() is not None:
            raise SetupError(
                f"it did not start:\n{_last_lines(log, before_bytes)}", next_step=f"see all of it in {log}"
            )
        time.sleep(_LOOK_EVERY_S)
    child.terminate()
    raise SetupError(
        f"it did not answer within {START_TIMEOUT_S:g} s and was stopped:\n{_last_lines(log, before_bytes)}",
        next_step=f"see all of it in {log}",
    )


class Machine(Struct, frozen=True):
    """What became of this machine's own agent: the models it serves, and why it is not healthy, or not even up."""

    models: Sequence[str]
    reason: str | None
    failed: bool = False


def wait_until_ready(running: Running, settings: Settings, show: Callable[[str], None]) -> Machine | None:
    """Wait until this machine's own agent has come up; None when that takes too long, or we may not look.

    `show` is told how far it is.
    """
    client = Client.at(running.url, settings)
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        _refuse_ended(running, settings)
        try:
            machine = find_machine(settings.data_path)
            own = own_node(client, machine)
        except Refused:
            return None
        if own is not None and own["last_seen_ms"] < (machine or running).started_at_ms:
            own = None  # a record of its life before
        if own is not None and own["phase"] not in _COMING_UP:
            return Machine(own["loaded_models"], own["reason"], failed=own["phase"] == Phase.ERROR)
        if own is not None and (runs := [each["name"] for each in own["services"] if each["status"] == "running"]):
            show(f"{own['node_id']} is {own['phase']}; it runs {', '.join(runs)} ...")
        time.sleep(_LOOK_EVERY_S)
    return None


def own_node(client: Client, machine: MachinePart | None) -> dict[str, Any] | None:
    """Return this machine's own node: that of the profile's machine, or else that of the control plane's process."""
    for node in client.get("/api/v1/nodes", limit=1000):
        if node["node_id"] == machine.machine_id if machine else node["link"] == "memory":
            return dict(node)
    return None


def _refuse_ended(running: Running, settings: Settings) -> None:
    """Raise SetupError with the end of its log when it does not run any more, or its machine does not."""
    if process_of(running) is None:
        raise SetupError(
            f"it ended while it started:\n{_last_lines(Path(running.log or os.devnull))}",
            next_step=f"see all of it in {running.log}",
        )
    machine = find_machine(settings.data_path)
    if machine is not None and machine.ended is not None and machine.pid is None:
        raise SetupError(
            f"{machine.machine_id} does not run: {machine.ended}:\n{_last_lines(Path(machine.log))}",
            next_step=f"see all of it in {machine.log}; the same command once more starts it anew",
        )


def stop(running: Running, settings: Settings) -> None:
    process = process_of(running)
    if process is None:
        return
    timeout_s = settings.stop_timeout_s + STOP_MARGIN_S
    try:
        process.terminate()
        ended = ends_within(process, timeout_s)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied:
        raise SetupError(
            f"pid {running.pid} belongs to {process.username()}", next_step="run `muster down` as that user"
        ) from None
    if not ended:
        raise SetupError(
            f"pid {running.pid} still runs {timeout_s:g} s after it was told to stop",
            next_step=f"look at {running.log or 'its log'}; `kill -9 {running.pid}` ends it and loses nothing stored",
        )


def _spawn(log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > _LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.1"))
        output = log.open("ab")
    except OSError as error:
        raise SetupError(
            f"cannot write {log}: {error.strerror}", next_step="choose another place with --data-dir"
        ) from None
    with output:
        return subprocess.Popen(
            [sys.executable, "-m", "muster.cli.main", "up"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | environment,
            start_new_session=True,
        )


def _answers(running: Running, settings: Settings) -> bool:
    try:
        Client.at(running.url, settings).get("/health")
    except Unreachable:
        return False
    return True


def _last_lines(log: Path, before_bytes: int = 0) -> str:
    """Return the end of what was written since; a log that has made room for a new one is read from its start."""
    try:
        written = log.read_bytes()
    except OSError:
        return ""
    lines = written[before_bytes if before_bytes <= len(written) else 0 :].decode(errors="replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:])
