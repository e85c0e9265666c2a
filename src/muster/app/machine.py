"""A machine of a profile as a process of its own: `muster agent`, started again when it is killed."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import structlog
from msgspec import structs

from muster.agent.backoff import Backoff
from muster.agent.services.log_file import LogFile
from muster.agent.services.restarts import Restarts
from muster.settings import Settings
from muster.system import SystemClock, die_with_parent, system_rng

log = structlog.get_logger()

_BACKOFF = Backoff(base_s=0.5, max_s=10.0)
_RESTARTS_MAX = 5
_STOP_MARGIN_S = 10.0  # beyond what running work is given: its services stop as well


class MachineProcess:
    """A Lifecycle. `changed` is told when its process is another, or none.

    It is tied to our own life: when we are killed, it stops as when it is asked to.
    """

    def __init__(self, settings: Settings, url: str, changed: Callable[[], None]) -> None:
        self._environment = environment(settings, url)
        self._changed = changed
        self._log_file = LogFile(settings.data_path / "logs" / "machine.log")
        self._stop_timeout_s = settings.stop_timeout_s + _STOP_MARGIN_S
        self._clock = SystemClock()
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.started_at_ms = 0
        self.ended: str | None = None  # how, in words; None as long as it is kept up

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def log_path(self) -> Path:
        return self._log_file.path

    async def start(self) -> None:
        if self._keeper is None:
            await self._spawn()
            self._keeper = asyncio.create_task(self._keep(), name="machine")

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await self._end()

    async def restart(self, changes: Mapping[str, str]) -> None:
        """Stop it and start it anew, `changes` on top of the environment that it had."""
        await self.stop()
        self._environment |= changes
        await self.start()

    async def _spawn(self) -> None:
        self._log_file.rotate_if_large()
        with self._log_file.open() as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "muster.cli.main", "agent"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for us: we stop it
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        self.started_at_ms, self.ended = self._clock.now_ms(), None
        log.info("machine_started", pid=self._process.pid, log=str(self.log_path))
        self._changed()

    async def _keep(self) -> None:
        """Start it again when it was killed; one that ended by itself was told to, or has said what is wrong."""
        restarts = Restarts(_RESTARTS_MAX, _BACKOFF, system_rng())
        while self._process is not None:
            since_s = self._clock.monotonic_s()
            code = await self._process.wait()
            reason = f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with code {code}"
            delay_s = restarts.next_delay_s(self._clock.monotonic_s() - since_s) if code < 0 else None
            self.ended = reason if delay_s is None else None
            self._changed()
            if delay_s is None:
                log.info("machine_ended", reason=reason, log=str(self.log_path))
                return
            log.error("machine_died", reason=reason, restart=restarts.total, wait_s=round(delay_s, 1))
            await asyncio.sleep(delay_s)
            await self._spawn()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._stop_timeout_s):
                await process.wait()
        except TimeoutError:
            log.warning("machine_killed", pid=process.pid, after_s=self._stop_timeout_s)
            process.kill()
            await process.wait()
        self.ended = "it was stopped"
        self._changed()


def environment(settings: Settings, url: str) -> dict[str, str]:
    """Return an environment that makes a machine's settings ours, but for where its control plane is."""
    given = {"control_plane": url, "link": "http", "data_dir": str(settings.data_path)}
    if settings.tls_cert_file and not settings.ca_file:
        given["ca_file"] = settings.tls_cert_file
    return _settings_as_environment(settings, given)


def gateway_environment(settings: Settings, listen: Sequence[tuple[str, int]], store_url: str) -> dict[str, str]:
    """Return an environment that makes a gateway process's settings ours, at our very addresses."""
    addresses = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in listen)
    given = {"listen": addresses, "valkey_url": store_url, "data_dir": str(settings.data_path)}
    return _settings_as_environment(settings, given)


def _settings_as_environment(settings: Settings, given: Mapping[str, str]) -> dict[str, str]:
    defaults = Settings()
    own = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in structs.asdict(settings).items()
        if value != getattr(defaults, name)
    }
    return dict(os.environ) | {f"MUSTER_{name.upper()}": value for name, value in {**own, **given}.items()}
