"""What `muster up --profile` runs beside the control plane: a machine as a process of its own, and the event log."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psutil
import structlog

from muster.app.event_log import EventLog, Way
from muster.app.machine import MachineProcess
from muster.app.stack import Stack
from muster.errors import SetupError
from muster.settings import Settings
from muster.tls import trusting, trusting_only

log = structlog.get_logger()

STACK_FILE = "stack.json"
REQUEST_FILE = "machine-request.json"
RESTART_SIGNAL = signal.SIGUSR1

_STOP_MARGIN_S = 15.0
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}

Tell = Callable[[str, float | None], None]


class FullStack:
    """A Lifecycle. `tell` hears how the machine comes up; `ready` is called once it has, for the first time."""

    def __init__(
        self, settings: Settings, urls: Sequence[str], machine_id: str, tell: Tell, ready: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._machine_id = machine_id
        self._tell = tell
        self._way = way = way_to(settings, urls)
        self._machine = MachineProcess(settings, way.url, self._write)
        self._told = MachineTold(machine_id, tell, ready)
        self._path = settings.event_log_path or settings.data_path / "logs" / "monitorEventStream.log"
        self._event_log = EventLog(way, self._path, self._told.hear)
        self._file = settings.data_path / STACK_FILE
        self._stack = Stack(settings.stop_timeout_s + _STOP_MARGIN_S)
        self._restarting: set[asyncio.Task[None]] = set()
        self._one_restart = asyncio.Lock()

    async def start(self) -> None:
        self._tell(f"writing all events to {self._path}", None)
        await start_event_log(self._event_log, self._path, self._stack)
        asyncio.get_running_loop().add_signal_handler(RESTART_SIGNAL, self._on_request)  # before anybody finds us
        self._tell(f"starting {self._machine_id}, its log is {self._machine.log_path}", None)
        await self._stack.start(self._machine)

    async def stop(self) -> None:
        asyncio.get_running_loop().remove_signal_handler(RESTART_SIGNAL)
        for task in self._restarting:
            task.cancel()
        await asyncio.gather(*self._restarting, return_exceptions=True)
        await self._stack.stop()
        self._file.unlink(missing_ok=True)

    def _on_request(self) -> None:
        task = asyncio.create_task(self._restart(), name="machine anew")
        self._restarting.add(task)
        task.add_done_callback(self._restarting.discard)

    async def _restart(self) -> None:
        """Start the machine anew, as a second `muster up --profile` asks."""
        path = self._settings.data_path / REQUEST_FILE
        try:
            changes = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        except (OSError, msgspec.DecodeError):
            changes = {}
        path.unlink(missing_ok=True)
        async with self._one_restart:
            self._tell(f"starting {self._machine_id} anew", None)
            await self._machine.restart({f"MUSTER_{name.upper()}": value for name, value in changes.items()})

    def _write(self) -> None:
        """Say what runs, so that others find it, and what we leave behind if we are killed."""
        machine, pid = self._machine, self._machine.pid
        body = {
            "machine_id": self._machine_id,
            "pid": pid,
            "created_at_ms": _created_at_ms(pid),
            "started_at_ms": machine.started_at_ms,
            "ended": machine.ended,
            "log": str(machine.log_path),
        }
        part = self._file.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(body))
        part.replace(self._file)


class MachineTold:
    """What a person is told of one machine that comes up, from the monitor's own events."""

    def __init__(self, machine_id: str, tell: Tell, ready: Callable[[], None]) -> None:
        self._machine_id = machine_id
        self._tell = tell
        self._ready = ready
        self._was_ready = False

    def hear(self, message: dict[str, Any]) -> None:
        if message.get("machine_id") != self._machine_id:
            return
        match message:
            case {"type": "machine_startup_step", "step": step}:
                self._say(step)
            case {"type": "service_started", "service": name}:
                self._say(f"{name} runs")
            case {"type": "service_failed", "service": name, "reason": reason}:
                self._say(f"{name} failed: {reason}")
            case {"type": "machine_startup_failed", "step": step, "reason": reason}:
                self._say(f"did not come up ({step}): {reason}")
                self._say("correct that, then give the same command once more: it starts the machine anew")
            case {"type": "machine_startup_complete", "worker_count": count}:
                self._say(f"ready, {count} workers")
                if not self._was_ready:
                    self._was_ready = True
                    self._ready()

    def _say(self, what: str) -> None:
        self._tell(f"{self._machine_id}: {what}", None)


async def start_event_log(event_log: EventLog, path: Path, stack: Stack) -> None:
    try:
        await stack.start(event_log)
    except OSError as error:
        raise SetupError(
            f"cannot write the event log {path}: {error.strerror}", next_step="choose another with --event-log FILE"
        ) from None


def way_to(settings: Settings, urls: Sequence[str]) -> Way:
    """Return how this machine itself reaches the control plane that listens at `urls`."""
    parts = urlsplit(urls[0])
    host = _ANYWHERE.get(parts.hostname or "", parts.hostname or "")
    url = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port}"
    if parts.scheme != "https":
        return Way(url=url, token=settings.token)
    tls = trusting(settings.ca_file) if settings.ca_file else trusting_only(settings.tls_cert_file)
    return Way(url=url, token=settings.token, tls=tls)


def _created_at_ms(pid: int | None) -> int | None:
    """Return what tells a process from a later one with the same pid."""
    try:
        return round(psutil.Process(pid).create_time() * 1000) if pid is not None else None
    except psutil.Error:
        return None
