"""The agent's side of the keeper: finds the one of its data directory, or starts one, and gives it services to keep."""

import asyncio
import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from muster.agent.services import keeper
from muster.system import own_environment

log = structlog.get_logger()

_FOLDER = "services"
_START_S = 20.0  # it may have much to kill first
_POLL_S = 0.02
_TURN_S = 1.0
_ANSWER_S = 30.0
_STOP_MARGIN_S = 15.0  # beyond what the service is given: what is left is killed, and looked at until it is gone
_LINE_BYTES_MAX = 16 * 1024 * 1024


class Order(Struct, frozen=True, kw_only=True):
    """What is to be kept. `note` is for the next agent; `keep_s` is how long none may be there."""

    name: str
    command: list[str]
    env: dict[str, str]
    directory: str
    output: str  # a file
    cgroup: str | None
    keep_s: float
    stop_s: float
    note: Any


class Kept(Struct, frozen=True, kw_only=True):
    name: str
    pid: int
    started: int | None = None  # in ticks; None where the system does not say
    note: Any = None
    cgroup: str | None = None
    cgroup_problem: str | None = None


class End(Struct, frozen=True, kw_only=True):
    """`code` is None when nobody knows it any more; `left` are processes that hang in the kernel."""

    code: int | None = None
    left: tuple[int, ...] = ()
    oom_kills: int = 0
    with_keeper: bool = False


class KeeperClient:
    """Asked for the first time, or after its end, the keeper is started. Raises OSError, with the reason."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._folder = data_dir / _FOLDER
        self._scope = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
        self._opening = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ends: dict[str, asyncio.Future[End]] = {}
        self._count = 0

    async def find(self) -> list[Kept]:
        """Return what an agent before us has left to keep."""
        if not (self._folder / keeper.SOCKET).exists():
            return []
        async with self._opening:
            return await self._connect_in_turn() or []

    async def spawn(self, order: Order) -> Kept:
        async with self._opening:
            if self._writer is None:
                await self._open()
        try:
            answer = await self._ask("spawn", _ANSWER_S, **msgspec.structs.asdict(order))
        except (asyncio.CancelledError, TimeoutError):  # it may have been started all the same
            await self.stop(order.name, 0.0)
            raise
        if (number := answer.get("errno")) is not None:
            raise OSError(number, answer["strerror"], answer.get("filename"))
        return msgspec.convert(answer, Kept)

    async def ended(self, name: str) -> End:
        """Wait for the end of one that was spawned or found."""
        return await asyncio.shield(self._ends[name])

    async def stop(self, name: str, timeout_s: float) -> None:
        """Ask it to end, then force it; in the end all of it is gone, whatever it started included."""
        if self._writer is None:
            return  # it went with the keeper
        try:
            answer = await self._ask("stop", timeout_s + _STOP_MARGIN_S, name=name, timeout_s=timeout_s)
        except OSError as error:
            log.warning("service_not_stopped", service=name, error=str(error))
            return
        if answer["left"]:
            log.error("process_stuck", service=name, pids=answer["left"], next_step="restart this machine")

    @property
    def kept(self) -> frozenset[str]:
        """The names of all that were spawned or found, and of whose end nothing was heard."""
        return frozenset(name for name, end in self._ends.items() if not end.done())

    def runs(self, kept: Kept) -> bool:
        """Whether that pid is still this very process: by when it was started, and by what it was given."""
        process = keeper.read_process(kept.pid)
        if process is None:
            return not keeper.PROC.joinpath("self").exists()  # then the keeper's word is all there is
        marker = keeper.read_marker(kept.pid)  # a program may write over its environment
        return process.started == kept.started and marker in {None, f"{self._scope}/{kept.name}"}

    async def close(self) -> None:
        """Leave. What is still kept ends in its time; a keeper with nothing to keep ends now."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            self._listening = None

    async def _open(self) -> None:
        """Connect, to one of ours if need be: the one before may just be ending."""
        try:
            async with asyncio.timeout(_START_S):
                while await self._connect_in_turn() is None:
                    await self._start()
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise OSError(
                errno.ETIMEDOUT, f"no keeper of services could be started within {_START_S:g} s; see {self._log_path}"
            ) from None

    async def _connect_in_turn(self) -> list[Kept] | None:
        """Wait a little for the agent before us: it may be gone, and the keeper only about to notice."""
        deadline_s = time.monotonic() + _TURN_S
        while True:
            try:
                return await self._connect()
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise
                await asyncio.sleep(_POLL_S)

    async def _connect(self) -> list[Kept] | None:
        """Return what it keeps; None when there is none, or not any more."""
        try:
            with address_of(self._folder) as address:
                reader, self._writer = await asyncio.open_unix_connection(address, limit=_LINE_BYTES_MAX)
        except OSError:
            return None
        self._count = 0  # who is refused gets the answer to the first question
        self._listening = asyncio.create_task(self._listen(reader, self._writer), name="keeper")
        try:
            answer = await self._ask("hello", _ANSWER_S, agent=os.getpid())
        except ConnectionError:
            return None
        if (pid := answer.get("busy")) is not None:
            await self.close()
            raise BlockingIOError(
                errno.EAGAIN, f"another agent (pid {pid}) looks after the services in {self._data_dir}"
            )
        if answer["version"] != keeper.VERSION:
            log.warning("keeper_of_another_version", version=answer["version"])
            await self._ask_to_end()
            return None
        return msgspec.convert(answer["kept"], list[Kept])

    async def _ask_to_end(self) -> None:
        if self._writer is not None and self._listening is not None:
            self._writer.write(msgspec.json.encode({"id": 0, "do": "end"}) + b"\n")
            await asyncio.wait([self._listening], timeout=_ANSWER_S)

    async def _start(self) -> None:
        """Start one in the background; where another has come first, that one is as good."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self._run_starter)  # it takes a moment, and goes on though nobody waits for it any more

    def _run_starter(self) -> None:
        words = (sys.executable, "-I", "-S", keeper.__file__, str(self._folder), self._scope)
        with self._log_path.open("ab") as output:
            done = subprocess.run(  # noqa: S603 - ourselves
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
                env=own_environment(),
                start_new_session=True,
                check=False,
            )
        if done.returncode != 0:
            reason = f"the keeper of services cannot be started (code {done.returncode}); see {self._log_path}"
            raise OSError(errno.EIO, reason)

    @property
    def _log_path(self) -> Path:
        return self._data_dir / "logs" / "keeper.log"

    async def _ask(self, do: str, within_s: float, **what: Any) -> dict[str, Any]:
        if self._writer is None:
            raise ConnectionResetError(errno.ECONNRESET, "the keeper of services has ended")
        self._count += 1
        number = self._count
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self._writer.write(msgspec.json.encode({"id": number, "do": do, **what}) + b"\n")
        try:
            async with asyncio.timeout(within_s):
                return await answer
        except TimeoutError:
            raise TimeoutError(errno.ETIMEDOUT, f"the keeper of services does not answer in {within_s:g} s") from None
        finally:
            self._answers.pop(number, None)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self._take(msgspec.json.decode(line))
        except OSError as error:
            log.debug("keeper_connection_broke", error=str(error))
        except ValueError as error:
            log.error("keeper_not_understood", error=str(error))  # noqa: TRY400 - a line that is not ours, no fault of code
        finally:
            self._lost(writer)

    def _take(self, message: dict[str, Any]) -> None:
        if "ended" in message:
            end = self._ends.get(message["ended"])
            if end is not None and not end.done():
                end.set_result(msgspec.convert(message, End))
            return
        for kept in message.get("kept", [message] if "pid" in message else []):
            self._ends[kept["name"]] = asyncio.get_running_loop().create_future()  # before its end can be told
        answer = self._answers.get(message["id"])
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _lost(self, writer: asyncio.StreamWriter) -> None:
        """Note that the keeper has gone, and its services with it; or that we have left it."""
        writer.close()
        if self._writer is writer:
            log.warning("keeper_lost", services=sum(not end.done() for end in self._ends.values()))
            self._writer = None
        for end in self._ends.values():
            if not end.done():
                end.set_result(End(with_keeper=True))
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError(errno.ECONNRESET, "the keeper of services has ended"))


@contextmanager
def address_of(folder: Path) -> Iterator[str]:
    """Return a name for the socket that is short enough for any folder, where the system has one."""
    if not Path("/proc/self/fd").exists():
        yield str(folder / keeper.SOCKET)
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{keeper.SOCKET}"
    finally:
        os.close(descriptor)
