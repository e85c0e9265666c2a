"""HTTP to a model server: every wait has a deadline, every answer a bound, every failure a name."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import aiohttp
import msgspec
from aiohttp.http import HttpProcessingError
from msgspec import Struct

from muster.connectors.pieces import DONE, EventData, JsonLines
from muster.errors import (
    Forbidden,
    InvalidInput,
    MusterError,
    NotFound,
    PayloadTooLarge,
    Unauthorized,
    UpstreamFailed,
    UpstreamTimeout,
)

_OK = 200
_BAD_REQUEST = 400
_NOT_IMPLEMENTED = 501
_SERVER_ERROR = 500
_TRY_AGAIN = frozenset({408, 425, 429})
_REFUSALS: dict[int, type[MusterError]] = {401: Unauthorized, 403: Forbidden, 404: NotFound, 413: PayloadTooLarge}
_EXCERPT_CHARS = 500
_TOO_LARGE = "too large to process"  # llama.cpp of an embedding's input, with status 500

# An engine keeps one thread for each open connection, idle ones too; a job's or a look's connection is not worth one.
_HEADERS = {"Connection": "close", "Content-Type": "application/json"}

T = TypeVar("T")
Take = Callable[[dict[str, Any]], bool]


class EngineLimits(Struct, frozen=True, kw_only=True):
    look_s: float = 3.0  # a whole look at its state
    connect_s: float = 5.0
    first_token_s: float = 300.0  # it may queue the request and has to read the prompt; also a whole embedding
    next_token_s: float = 120.0
    look_bytes_max: int = 4_194_304
    answer_bytes_max: int = 67_108_864


class Look(Struct, frozen=True, kw_only=True):
    """What a server said to a small request; `value` is its JSON, None when it is none."""

    status: int
    server: str
    value: Any


class Engine:
    """A model server at any URL, as connectors talk to it."""

    def __init__(self, session: aiohttp.ClientSession, limits: EngineLimits | None = None) -> None:
        self._session = session
        self._limits = limits or EngineLimits()

    async def look(self, url: str, body: Any = None, *, method: str | None = None) -> Look:
        """Ask for something small, whatever the status; UpstreamFailed when the server is silent."""
        limits = self._limits
        with failures_named(url, f"within {limits.look_s:g} s"):
            async with (
                asyncio.timeout(limits.look_s),
                self._session.request(
                    method or ("GET" if body is None else "POST"),
                    url,
                    data=None if body is None else msgspec.json.encode(body),
                    headers=_HEADERS,
                    allow_redirects=False,
                ) as response,
            ):
                data = await _read(response, limits.look_bytes_max)
                return Look(status=response.status, server=response.headers.get("Server", ""), value=_json(data))

    async def read(self, url: str, kind: type[T]) -> T:
        """Look and understand; UpstreamFailed also when something else than `kind` comes."""
        look = await self.look(url)
        if look.status != _OK:
            raise UpstreamFailed(f"{url} answered with status {look.status}")
        try:
            return msgspec.convert(look.value, kind)
        except msgspec.ValidationError as error:
            raise UpstreamFailed(f"{url} answered something else than expected: {error}") from None

    async def text(self, url: str) -> str | None:
        """Read something small that is no JSON; None when the server has no such thing."""
        limits = self._limits
        with failures_named(url, f"within {limits.look_s:g} s"):
            async with (
                asyncio.timeout(limits.look_s),
                self._session.get(url, headers=_HEADERS, allow_redirects=False) as response,
            ):
                data = await _read(response, limits.look_bytes_max)
                return data.decode(errors="replace") if response.status == _OK else None

    async def ask(self, url: str, body: dict[str, Any]) -> Any:
        """Post a job and return its whole answer."""
        limits = self._limits
        with failures_named(url, f"within {limits.first_token_s:g} s"):
            async with asyncio.timeout(limits.first_token_s), self._post(url, body) as response:
                data = await _read(response, limits.answer_bytes_max)
        value = _json(data)
        if response.status != _OK:
            raise refusal(response.status, value, data)
        if not isinstance(value, dict):
            raise UpstreamFailed(f"{url} answered something that is not a JSON object")
        return value

    async def stream(
        self, url: str, body: dict[str, Any], take: Take, pieces: EventData | JsonLines | None = None
    ) -> None:
        """Post a job and give each event to `take`, which says whether it brought output.

        Only output keeps the answer alive: an engine that hangs may well go on sending comments.
        """
        limits = self._limits
        pieces = pieces or EventData()
        received = 0
        now_s = asyncio.get_running_loop().time
        waiting = f"with a first token within {limits.first_token_s:g} s"
        deadline_s = now_s() + limits.first_token_s
        with failures_named(url, lambda: waiting):
            async with asyncio.timeout_at(deadline_s) as timeout, self._post(url, body) as response:
                if response.status != _OK:
                    data = await _read(response, limits.answer_bytes_max)
                    raise refusal(response.status, _json(data), data)
                async for data in response.content.iter_any():
                    received += len(data)
                    if received > limits.answer_bytes_max:
                        raise UpstreamFailed(f"{url} answered more than {limits.answer_bytes_max} bytes")
                    for event in pieces.feed(data):
                        if event == DONE:
                            return
                        if take(_event(event, url)):
                            waiting = f"with a next token within {limits.next_token_s:g} s"
                            timeout.reschedule(now_s() + limits.next_token_s)

    async def follow(self, url: str, body: dict[str, Any], take: Callable[[dict[str, Any]], None]) -> None:
        """Post a long piece of work and give each line of its answer to `take`; silence ends it, length does not."""
        quiet_s = self._limits.first_token_s
        with failures_named(url, f"with a next word within {quiet_s:g} s"):
            async with asyncio.timeout(quiet_s) as timeout, self._post(url, body) as response:
                if response.status != _OK:
                    data = await _read(response, self._limits.look_bytes_max)
                    raise refusal(response.status, _json(data), data)
                try:
                    async for line in response.content:
                        timeout.reschedule(asyncio.get_running_loop().time() + quiet_s)
                        if line.strip():
                            take(_event(line, url))
                except (ValueError, HttpProcessingError):  # by version of aiohttp
                    raise UpstreamFailed(f"{url} sent a line without end") from None

    def _post(self, url: str, body: dict[str, Any]) -> Any:
        return self._session.post(
            url,
            data=msgspec.json.encode(body),
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_s),
        )


def refusal(status: int, value: Any, body: bytes = b"") -> MusterError:
    """Say what an engine's error means for the job: its own fault, or worth another try."""
    text = error_text(value) or body[:_EXCERPT_CHARS].decode(errors="replace").strip() or "no reason given"
    if _TOO_LARGE in text:
        return PayloadTooLarge(f"the model server refused this job: {text}")
    if status in _TRY_AGAIN or (status >= _SERVER_ERROR and status != _NOT_IMPLEMENTED):
        return UpstreamFailed(f"the model server answered {status}: {text}")
    return _REFUSALS.get(status, InvalidInput)(f"the model server refused this job ({status}): {text}")


def error_text(value: Any) -> str | None:
    """Find the sentence in an error of the OpenAI, the Ollama or FastAPI's shape."""
    if not isinstance(value, dict):
        return None
    error = value.get("error", value.get("detail", value.get("message")))
    if isinstance(error, dict):
        error = error.get("message")
    return error[:_EXCERPT_CHARS] if isinstance(error, str) else None


def _event(data: bytes, url: str) -> dict[str, Any]:
    event = _json(data)
    if not isinstance(event, dict):
        raise UpstreamFailed(f"{url} sent an event that is not a JSON object")
    if event.get("error"):
        error = event["error"]
        code = error.get("code") if isinstance(error, dict) else None
        raise refusal(code if isinstance(code, int) and code >= _BAD_REQUEST else _SERVER_ERROR, event, data)
    return event


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


async def _read(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    parts, received = [], 0
    async for data in response.content.iter_any():
        received += len(data)
        if received > bytes_max:
            raise UpstreamFailed(f"{response.url} answered more than {bytes_max} bytes")
        parts.append(data)
    return b"".join(parts)


@contextmanager
def failures_named(url: str, wanted: str | Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise UpstreamTimeout(f"cannot connect to {url}: {error}") from None
    except TimeoutError:
        raise UpstreamTimeout(f"{url} did not answer {wanted if isinstance(wanted, str) else wanted()}") from None
    except (aiohttp.ClientConnectorCertificateError, aiohttp.InvalidURL) as error:
        raise UpstreamFailed(f"cannot connect to {url}: {error}") from None
    except aiohttp.ClientConnectorError as error:
        raise UpstreamFailed(f"cannot connect to {url}: {_plainly(error.os_error)}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamFailed(f"the connection to {url} was lost: {str(error) or type(error).__name__}") from None


def _plainly(error: OSError) -> str:
    """In the place of the reason asyncio puts the address, which the URL has said."""
    number = error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror or str(error)  # the resolver's are negative
