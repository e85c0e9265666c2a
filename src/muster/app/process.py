"""One process: its loop, its signals, and the file by which others find it."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import structlog
import uvloop

from muster import __version__
from muster.errors import SetupError
from muster.system import SystemClock, search_for_cycles_seldom

Progress = Callable[[str, float | None], None]  # what is being done, and how much of it

log = structlog.get_logger()

STATE_FILE = "muster.json"

Main = Callable[[asyncio.Event], Awaitable[None]]


def log_progress(message: str, fraction: float | None) -> None:
    """Tell it where nobody watches: a Progress."""
    log.info("progress", message=message, fraction=fraction)


def run(main: Main) -> int:
    """Run until `main` returns; SIGINT and SIGTERM set the event that it gets, a second one ends at once."""

    async def with_signals() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_signal(sig: signal.Signals) -> None:
            if stopping.is_set():
                log.warning("stopped_at_once", signal=sig.name)
                os._exit(128 + sig)
            log.info("stopping", signal=sig.name)
            stopping.set()

        for sig in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sig, on_signal, sig)
        await main(stopping)

    search_for_cycles_seldom()
    uvloop.run(with_signals())
    return 0


class StateFile:
    """A Lifecycle: says where this control plane listens, as long as it does."""

    def __init__(
        self,
        data_dir: Path,
        urls: Callable[[], Sequence[str]],
        grpc: Callable[[], str | None],
        store: Callable[[], tuple[str, int | None]],
        event_log: Path | None = None,
    ) -> None:
        """`store` returns its address without a password, and its pid where it is our own."""
        self._path = data_dir / STATE_FILE
        self._urls = urls
        self._grpc = grpc
        self._store = store
        self._event_log = event_log

    async def start(self) -> None:
        store, store_pid = self._store()
        body = {
            "pid": os.getpid(),
            "urls": self._urls(),
            "grpc": self._grpc(),
            "started_at_ms": SystemClock().now_ms(),
            "version": __version__,
            "log": self._log_file(),
            "store": store,
            "store_pid": store_pid,
            "event_log": str(self._event_log) if self._event_log else None,
        }
        part = self._path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(body))
        part.replace(self._path)

    async def stop(self) -> None:
        self._path.unlink(missing_ok=True)

    def _log_file(self) -> str | None:
        """Return the file that our output goes to, when it is the usual one of a detached start."""
        path = self._path.parent / "logs" / "muster.log"
        try:
            return str(path) if os.path.samestat(path.stat(), os.fstat(2)) else None
        except OSError:
            return None


def url_of(address: tuple[str, int], *, tls: bool) -> str:
    host, port = address
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def make_data_dir(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.write_bytes(b"1")
        probe.unlink()
    except OSError as error:
        raise SetupError(
            f"cannot write to the data directory {path}: {error.strerror}",
            next_step="choose another with --data-dir or MUSTER_DATA_DIR, or correct its rights or free space",
        ) from None
