"""The machine that `muster up --profile` runs beside the control plane: found, asked for anew, and cleared away."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from muster.cli.running import Running, ends_within
from muster.errors import SetupError

STACK_FILE = "stack.json"
REQUEST_FILE = "machine-request.json"
_RESTART_SIGNAL = signal.SIGUSR1
_SAME_MS = 50  # the start time of a process is told in hundredths of a second
_LOOK_EVERY_S = 0.1


class MachinePart(Struct, frozen=True, kw_only=True):
    """What `muster up --profile` writes of it; `ended` says how it did, if it does not run any more."""

    machine_id: str
    log: str
    started_at_ms: int
    pid: int | None = None
    created_at_ms: int | None = None
    ended: str | None = None


def find_machine(data_dir: Path) -> MachinePart | None:
    try:
        return msgspec.json.decode((data_dir / STACK_FILE).read_bytes(), type=MachinePart)
    except (OSError, msgspec.DecodeError):
        return None


def process_of(machine: MachinePart) -> psutil.Process | None:
    """Return its process; a pid alone proves nothing, so it must have begun when that one did and be one of ours."""
    if machine.pid is None or machine.created_at_ms is None:
        return None
    try:
        process = psutil.Process(machine.pid)
        is_same = abs(process.create_time() * 1000 - machine.created_at_ms) <= _SAME_MS
        is_ours = any("muster" in argument for argument in process.cmdline())
        is_alive = process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if is_same and is_ours and is_alive else None


def clear_left_behind(data_dir: Path, timeout_s: float) -> str | None:
    """End the machine that a Muster left behind when it was killed; return what was done, in words."""
    machine = find_machine(data_dir)
    if machine is None:
        return None
    process = process_of(machine)
    if process is not None:
        _end(process, timeout_s)
    (data_dir / STACK_FILE).unlink(missing_ok=True)
    (data_dir / REQUEST_FILE).unlink(missing_ok=True)
    return f"{machine.machine_id} (pid {machine.pid}), which an earlier Muster left behind" if process else None


def start_anew(running: Running, data_dir: Path, changes: Mapping[str, str], timeout_s: float) -> MachinePart:
    """Have the machine stopped and started with `changes` to its settings; return it once it is another process."""
    before = find_machine(data_dir)
    if before is None:
        raise SetupError(
            f"Muster runs on {data_dir} without a profile", next_step="stop it with `muster down`, then start it anew"
        )
    (data_dir / REQUEST_FILE).write_bytes(msgspec.json.encode(dict(changes)))
    os.kill(running.pid, _RESTART_SIGNAL)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        machine = find_machine(data_dir)
        if machine is not None and machine.pid is not None and machine.pid != before.pid:
            return machine
        time.sleep(_LOOK_EVERY_S)
    raise SetupError(
        f"{before.machine_id} was not started anew within {timeout_s:g} s",
        next_step=f"look into {running.log or 'the log of `muster up`'} and {before.log}",
    )


def _end(process: psutil.Process, timeout_s: float) -> None:
    """Ask, then force."""
    try:
        for stop in (process.terminate, process.kill):
            stop()
            if ends_within(process, timeout_s):
                return
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied:
        raise SetupError(
            f"pid {process.pid} belongs to {process.username()}", next_step="run this command as that user"
        ) from None
    raise SetupError(f"pid {process.pid} does not end", next_step=f"kill -9 {process.pid}")
