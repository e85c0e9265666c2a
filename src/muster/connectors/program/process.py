"""One process and all that it starts: in a group of its own, within limits, gone in the end whatever happened."""

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from muster.connectors.program.cgroup import Cgroup
from muster.connectors.program.config import Limits
from muster.errors import PayloadTooLarge, UpstreamFailed
from muster.system import die_with_parent, own_environment

_LINE_BYTES_MAX = 1_048_576
_CHUNK_BYTES = 65_536
_TAIL_BYTES = 4_096
_LOOK_EVERY_S = 0.01
_LAST_WORDS_S = 1.0  # for output that is on its way when it ends
_GONE_S = 5.0  # one that hangs in the kernel does not end even then
_BYTES_PER_MB = 1024 * 1024


class Group:
    def __init__(self, process: asyncio.subprocess.Process, cgroup: Cgroup | None, stdin: bytes) -> None:
        self._process = process
        self._cgroup = cgroup
        self._tail = bytearray()
        self._gone = asyncio.create_task(self._watch())
        self._helpers = [asyncio.create_task(self._feed(stdin)), asyncio.create_task(self._keep_errors())]

    @classmethod
    async def spawn(
        cls,
        words: Sequence[str],
        env: dict[str, str],
        directory: Path,
        limits: Limits,
        cgroup: Cgroup | None,
        stdin: str | None,
    ) -> Self:
        """Raise UpstreamFailed when it cannot be started."""
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=own_environment() | env,
                cwd=directory,
                start_new_session=True,
                preexec_fn=_prepare(limits, cgroup),
                limit=_LINE_BYTES_MAX,
            )
        except (OSError, ValueError) as error:
            raise UpstreamFailed(f"{words[0]!r} cannot be started: {error}") from None
        return cls(process, cgroup, (stdin or "").encode())

    async def read(self, bytes_max: int, take: Callable[[bytes], None]) -> None:
        """Give what it writes to `take`, line by line, until it has ended.

        A child that fled its group may hold the pipe for ever, and is not waited for.
        """
        reading = asyncio.create_task(self._read(bytes_max, take))
        try:
            await asyncio.wait({reading, self._gone}, return_when=asyncio.FIRST_COMPLETED)
            done, _ = await asyncio.wait({reading}, timeout=_LAST_WORDS_S)
            if done:
                reading.result()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, bytes_max: int, take: Callable[[bytes], None]) -> None:
        stream, total = self._process.stdout, 0
        while stream is not None:
            try:
                line = await stream.readline()
            except ValueError:
                raise PayloadTooLarge(f"it wrote a line of more than {_LINE_BYTES_MAX} bytes") from None
            total += len(line)
            if total > bytes_max:
                raise PayloadTooLarge(f"it wrote more than {bytes_max} bytes (output_bytes_max)")
            if not line:
                return
            take(line)

    async def ended(self) -> int:
        """Return its exit code, below 0 the signal that ended it."""
        return await asyncio.shield(self._gone)

    @property
    def errors(self) -> str:
        """The end of what it wrote to stderr."""
        return bytes(self._tail).decode(errors="replace").strip()

    async def end(self, stop_s: float) -> None:
        """Ask what still runs, then force; in the end nothing of it is left."""
        if self._process.returncode is None and stop_s > 0:
            self._signal(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(stop_s):
                    await self.ended()
        self._kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(_GONE_S):
                await self.ended()
        for helper in (self._gone, *self._helpers):
            helper.cancel()
        await asyncio.gather(self._gone, *self._helpers, return_exceptions=True)
        if (transport := getattr(self._process, "_transport", None)) is not None:
            transport.close()  # asyncio has no other way to let go of pipes that others hold
        if self._cgroup is not None:
            await self._cgroup.remove()

    async def _watch(self) -> int:
        """Return its exit code, once what it left behind is ended too.

        asyncio's own wait lasts until all who have its pipes have closed them, a child that it left behind included.
        """
        while (code := self._process.returncode) is None:  # noqa: ASYNC110 - see above
            await asyncio.sleep(_LOOK_EVERY_S)
        self._kill()
        return code

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._cgroup is not None:
            self._cgroup.kill()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # gone already
            os.killpg(self._process.pid, number)

    async def _feed(self, data: bytes) -> None:
        stream = self._process.stdin
        if stream is not None:
            with suppress(ConnectionError, BrokenPipeError):  # it need not read
                stream.write(data)
                await stream.drain()
            stream.close()

    async def _keep_errors(self) -> None:
        stream = self._process.stderr
        while stream is not None and (chunk := await stream.read(_CHUNK_BYTES)):
            self._tail += chunk
            del self._tail[:-_TAIL_BYTES]


def _prepare(limits: Limits, cgroup: Cgroup | None) -> Callable[[], None]:
    tie = die_with_parent()
    bounds = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_FSIZE, limits.file_mb * _BYTES_PER_MB),
    ]
    if limits.cpu_s is not None:
        bounds.append((resource.RLIMIT_CPU, limits.cpu_s))
    if limits.memory_mb is not None and (cgroup is None or not cgroup.limits_memory):
        bounds.append((resource.RLIMIT_AS, limits.memory_mb * _BYTES_PER_MB))

    def prepare() -> None:
        if tie is not None:
            tie()
        if cgroup is not None:
            cgroup.join()
        for kind, wanted in bounds:
            hard = resource.getrlimit(kind)[1]
            value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(kind, (value, value))

    return prepare
