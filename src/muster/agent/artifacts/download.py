"""One file over HTTP into a part that can be gone on with: after a cut, a wait, or the death of this process."""

import asyncio
import errno
import http
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
import structlog
from msgspec import Struct

from muster.agent.artifacts.part import Begun, Part, Sink, mark_of
from muster.agent.artifacts.patience import TRY_AGAIN, Patience, parse_retry_after
from muster.clock import Clock, Rng
from muster.domain.artifact import ArtifactFile
from muster.errors import ArtifactFailed, DiskFull

log = structlog.get_logger()

T = TypeVar("T", bound=Struct)

_CHUNK_BYTES = 1_048_576
_LOOK_EVERY_BYTES = 33_554_432  # at the room that is left
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)\Z")
_GONE = frozenset({404, 410})
_REFUSED = frozenset({401, 403})
_IF_REFUSED = "check that it is public; for a model hub that asks for a token set HF_TOKEN where the agent runs"

OnBytes = Callable[[int, int | None], None]  # how many there are, of how many
HasRoom = Callable[[int], Awaitable[None]]  # raises DiskFull where so many more would be too many


class Wanted(Struct, frozen=True, kw_only=True):
    """A file to fetch; what is known of it beforehand is what it must be. `shown` is the address without secrets."""

    path: str
    url: str
    shown: str
    size_bytes: int | None = None
    sha256: str | None = None
    headers: dict[str, str] = {}
    moves: bool = True  # whether a redirect is followed


class Got(Struct, frozen=True, kw_only=True):
    file: ArtifactFile
    validator: str | None


class Limits(Struct, frozen=True, kw_only=True):
    connect_s: float = 10.0
    idle_s: float = 30.0
    patience: Patience = Patience()


# Another holder, or the source, is always there to go on with.
FLEET_LIMITS = Limits(connect_s=3.0, patience=Patience(attempts_max=2, told_s_max=30.0))


class _Trouble(Exception):
    """What another attempt may get over."""

    def __init__(self, reason: str, told_s: float | None = None, status: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.told_s = told_s
        self.status = status


class Downloads:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        limits: Limits,
        clock: Clock,
        rng: Rng,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._pause = pause
        self._limits = limits
        self._clock = clock
        self._rng = rng

    async def fetch(
        self,
        wanted: Wanted,
        part: Part,
        on_bytes: OnBytes,
        has_room: HasRoom,
    ) -> Got:
        """Return what is then whole in `part`; ArtifactFailed says why not, and leaves what can be gone on with."""
        failures = 0
        resumed_wrong = False
        while True:
            before = part.size
            try:
                return await self._attempt(wanted, part, on_bytes, has_room)
            except _WrongContent as error:
                part.drop()
                # What was gone on with may have been a part of something else: once more, and from the start.
                if resumed_wrong or not before:
                    raise _wrong_content(wanted, str(error)) from None
                resumed_wrong = True
                log.warning("download_begun_anew", url=wanted.shown, reason=str(error))
            except _Trouble as trouble:
                failures = 1 if part.size > before else failures + 1
                delay_s = self._limits.patience.delay_s(failures, trouble.told_s, self._rng)
                if delay_s is None:
                    raise _given_up(wanted, trouble) from None
                log.info(
                    "download_waits",
                    url=wanted.shown,
                    reason=trouble.reason,
                    attempt=failures,
                    wait_s=round(delay_s, 1),
                    have_bytes=part.size,
                )
                await self._pause(delay_s)

    async def read_json(self, url: str, kind: type[T], headers: dict[str, str], bytes_max: int) -> T:
        """Ask for something small, as patiently as for a file."""
        failures = 0
        wanted = Wanted(path="", url=url, shown=url)
        while True:
            try:
                async with self._opened(wanted, headers) as response:
                    self._check_status(wanted, response, {http.HTTPStatus.OK})
                    body = await response.content.read(bytes_max + 1)
                    while not response.content.at_eof() and len(body) <= bytes_max:
                        body += await response.content.read(bytes_max + 1 - len(body))
                if len(body) > bytes_max:
                    raise _wrong_content(wanted, f"the answer has more than {bytes_max} bytes")
                return msgspec.json.decode(body, type=kind)
            except msgspec.DecodeError as error:
                raise _wrong_content(wanted, f"the answer was not understood: {error}") from None
            except (aiohttp.ClientError, TimeoutError, OSError, _Trouble) as error:
                trouble = error if isinstance(error, _Trouble) else _Trouble(_in_words(error, self._limits))
                failures += 1
                delay_s = self._limits.patience.delay_s(failures, trouble.told_s, self._rng)
                if delay_s is None:
                    raise _given_up(wanted, trouble) from None
                await self._pause(delay_s)

    async def is_unchanged(self, wanted: Wanted, validator: str) -> bool:
        """Ask the source whether it still has this very version; ArtifactFailed when it does not say."""
        try:
            async with self._opened(wanted, wanted.headers | _unless(validator)) as response:
                if response.status == http.HTTPStatus.NOT_MODIFIED:
                    return True
                self._check_status(wanted, response, {http.HTTPStatus.OK})
                return _validator(response) == validator
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _given_up(wanted, _Trouble(_in_words(error, self._limits))) from None
        except _Trouble as trouble:
            raise _given_up(wanted, trouble) from None

    # --- one attempt -------------------------------------------------------------------------------------------------

    async def _attempt(self, wanted: Wanted, part: Part, on_bytes: OnBytes, has_room: HasRoom) -> Got:
        offset, headers = _where_to_go_on(wanted, part)
        begun = part.begun
        if offset == wanted.size_bytes and wanted.sha256 is not None:
            return await self._finish(wanted, Sink(part.path, offset), begun.validator if begun else None)
        async with self._named_failures(wanted, part), self._opened(wanted, headers) as response:
            if response.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
                part.drop()
                raise _Trouble("the part that was here is not one of this file any more", 0.0)
            self._check_status(wanted, response, {http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT})
            offset, total = _extent(wanted, response, offset)
            await has_room(max(0, (total or offset) - offset))
            part.begin(Begun(source=mark_of(wanted.url), validator=_validator(response)))
            sink = Sink(part.path, offset)
            try:
                await self._take(response, sink, total, on_bytes, has_room)
            finally:
                await asyncio.to_thread(sink.close)
            return await self._finish(wanted, sink, _validator(response))

    @asynccontextmanager
    async def _named_failures(self, wanted: Wanted, part: Part) -> AsyncIterator[None]:
        try:
            yield
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _Trouble(_in_words(error, self._limits)) from None
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise _disk_full(wanted.shown, part.path.parent) from None
            raise

    def _opened(self, wanted: Wanted, headers: dict[str, str]) -> "aiohttp.client._RequestContextManager":
        limits = self._limits
        return self._session.get(
            wanted.url,
            # As it is, or neither sizes nor ranges would be those of the file.
            headers={"Accept-Encoding": "identity"} | headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_s, sock_read=limits.idle_s),
            allow_redirects=wanted.moves,
            read_bufsize=_CHUNK_BYTES,  # what comes while a chunk is written is ready in one piece
        )

    def _check_status(self, wanted: Wanted, response: aiohttp.ClientResponse, good: set[http.HTTPStatus]) -> None:
        status = response.status
        if wanted.url.startswith("https:") and response.url.scheme != "https":
            raise _final(wanted, "it leads from https to http, where anybody on the way could change it")
        if status in good:
            return
        told_s = parse_retry_after(response.headers.get("Retry-After"), self._clock.now_ms())
        if status in TRY_AGAIN:
            raise _Trouble(f"the server answered {status}", told_s, status)
        if status in _GONE:
            raise _final(wanted, f"there is nothing (the server answered {status})", "check the name, and the revision")
        if status in _REFUSED:
            raise _final(wanted, f"the server answered {status}", _IF_REFUSED)
        raise _final(wanted, f"the server answered {status}")

    async def _take(
        self,
        response: aiohttp.ClientResponse,
        sink: Sink,
        total: int | None,
        on_bytes: OnBytes,
        has_room: HasRoom,
    ) -> None:
        await asyncio.to_thread(sink.read_again)
        looked_at = sink.size
        on_bytes(sink.size, total)
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            await asyncio.to_thread(sink.write, chunk)
            on_bytes(sink.size, total)
            if total is not None and sink.size > total:
                raise _WrongContent(f"more than the {total} bytes came that were announced")
            if sink.size - looked_at >= _LOOK_EVERY_BYTES:
                looked_at = sink.size
                await has_room(max(0, (total or sink.size) - sink.size))

    async def _finish(self, wanted: Wanted, sink: Sink, validator: str | None) -> Got:
        if not sink.is_read:
            await asyncio.to_thread(sink.read_again)
            await asyncio.to_thread(sink.close)
        if wanted.size_bytes is not None and sink.size != wanted.size_bytes:
            raise _WrongContent(f"it has {sink.size} bytes and must have {wanted.size_bytes}")
        if wanted.sha256 is not None and sink.sha256 != wanted.sha256:
            raise _WrongContent(f"its checksum is {sink.sha256} and must be {wanted.sha256}")
        return Got(file=ArtifactFile(path=wanted.path, size_bytes=sink.size, sha256=sink.sha256), validator=validator)


class _WrongContent(Exception):
    """Every byte came, and they are not those that must come."""


def _disk_full(name: str, folder: Path) -> DiskFull:
    return DiskFull(
        f"the disk is full: {name} cannot be kept below {folder}",
        next_step="free some space, remove models (muster model rm), or set MUSTER_ARTIFACT_DIR to another disk; what "
        "has come so far is kept and gone on with",
    )


def _where_to_go_on(wanted: Wanted, part: Part) -> tuple[int, dict[str, str]]:
    """Return how much of it is here and what to ask for: only where a mistake would be noticed is it gone on with.

    That is where the checksum in the end tells, or the server at once.
    """
    offset, begun = part.size, part.begun
    if not offset or begun is None or offset > (wanted.size_bytes or offset):
        return 0, wanted.headers
    is_same = begun.source == mark_of(wanted.url) and begun.is_strong
    if wanted.sha256 is None and not is_same:
        return 0, wanted.headers
    condition = {"If-Range": begun.validator} if is_same and begun.validator else {}
    return offset, wanted.headers | {"Range": f"bytes={offset}-"} | condition


def _unless(validator: str) -> dict[str, str]:
    is_tag = validator.startswith(('"', "W/"))
    return {"If-None-Match" if is_tag else "If-Modified-Since": validator}


def _validator(response: aiohttp.ClientResponse) -> str | None:
    return response.headers.get("ETag") or response.headers.get("Last-Modified")


def _extent(wanted: Wanted, response: aiohttp.ClientResponse, offset: int) -> tuple[int, int | None]:
    """Return where the answer begins, and how long the whole file is; None where only its end will tell."""
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    total = None if encoded else response.content_length
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        found = _RANGE.match(response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != offset:
            raise _WrongContent("the server answered with another part than was asked for")
        total = None if found[2] == "*" else int(found[2])
    else:
        offset = 0
    if total is not None and wanted.size_bytes is not None and total != wanted.size_bytes:
        raise _WrongContent(f"it has {total} bytes there and must have {wanted.size_bytes}")
    is_chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    if total is None and not is_chunked and wanted.sha256 is None and wanted.size_bytes is None:
        raise _final(
            wanted,
            "the server does not say how long it is, so a cut could not be told from its end",
            "name its checksum: URL#sha256=…",
        )
    return offset, total


def _in_words(error: BaseException, limits: Limits) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no connection within {limits.connect_s:g} s"
    if isinstance(error, TimeoutError):
        return f"nothing came for {limits.idle_s:g} s"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection was cut in the middle"
    return str(error) or type(error).__name__


def _given_up(wanted: Wanted, trouble: _Trouble) -> ArtifactFailed:
    waits = "" if trouble.told_s is None else f" and asks to be left alone for {trouble.told_s:g} s"
    step = _IF_REFUSED if trouble.status in _REFUSED else "check the network and the address, then try again"
    return ArtifactFailed(f"{wanted.shown} cannot be fetched: {trouble.reason}{waits}", next_step=step)


def _final(wanted: Wanted, why: str, next_step: str = "check the address") -> ArtifactFailed:
    return ArtifactFailed(f"{wanted.shown} cannot be fetched: {why}", next_step=next_step)


def _wrong_content(wanted: Wanted, why: str) -> ArtifactFailed:
    return ArtifactFailed(
        f"what came from {wanted.shown} was thrown away: {why}",
        next_step="check the address and the checksum; if they are right, its source serves another file",
    )
