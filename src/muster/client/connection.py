"""Requests to a control plane, or to one of several: with deadlines, and again where that can do no harm."""

import asyncio
import io
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from muster import __version__
from muster.client.errors import NotTrusted, Unreachable, error_of
from muster.errors import MusterError
from muster.ids import base32
from muster.tls import trusting

_DEFAULT_URL = "http://127.0.0.1:8090"
_PAUSE_S, _PAUSE_S_MAX = 0.1, 5.0
_CONNECT_S = 10.0
_CONNECTIONS_MAX = 32
_MESSAGE_BYTES_MAX = 67_108_864
_HEARTBEAT_S = 15.0
_ERROR = 400
_AWAY = frozenset({502, 503, 504})
_PASSING = _AWAY | {429}
_LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError, OSError)
_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class Pauses:
    """How long to wait before each further try: twice as long each time, up to a bound, and never all at once."""

    def __init__(self) -> None:
        self._s = _PAUSE_S

    def next_s(self, at_least_s: float | None = None) -> float:
        pause_s = self._s * random.uniform(0.5, 1.0)  # noqa: S311  # spreads callers; nothing to be guessed
        self._s = min(2 * self._s, _PAUSE_S_MAX)
        return max(pause_s, at_least_s or 0.0)


class Connection:
    """Where nothing is given, it is as MUSTER_CONTROL_PLANE, MUSTER_TOKEN and MUSTER_CA_FILE say."""

    def __init__(
        self,
        url: str | Sequence[str] | None,
        *,
        token: str | None,
        ca_file: str | None,
        tls: ssl.SSLContext | None,
        timeout_s: float,
        give_up_after_s: float,
        correlation_id: str | None,
    ) -> None:
        given = url or os.environ.get("MUSTER_CONTROL_PLANE") or _DEFAULT_URL
        self._urls = [_address(one) for one in (given.split(",") if isinstance(given, str) else given)]
        self._at = 0
        token = os.environ.get("MUSTER_TOKEN", "") if token is None else token
        self._headers = {"User-Agent": f"muster-client/{__version__}", "Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        if tls is None and any(one.startswith("https:") for one in self._urls):
            tls = trusting(os.environ.get("MUSTER_CA_FILE", "") if ca_file is None else ca_file)
        self._tls = tls
        self._timeout_s = timeout_s
        self._correlation_id = correlation_id
        self._session: aiohttp.ClientSession | None = None
        self.give_up_after_s = give_up_after_s

    @property
    def url(self) -> str:
        """The control plane that is asked at present."""
        return self._urls[self._at]

    def ask_another(self) -> None:
        self._at = (self._at + 1) % len(self._urls)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        repeat: bool = True,
    ) -> Any:
        """Return the decoded answer, or raise the error that it tells.

        A control plane that is away or has no room is asked again until `give_up_after_s` is over; without `repeat`
        only while nothing can have reached it.
        """
        until_s = time.monotonic() + self.give_up_after_s
        pauses = Pauses()
        correlation_id = self._correlation_id or _new_correlation_id()
        while True:
            sent = True
            problem: MusterError
            try:
                return await self._once(method, path, query, body, correlation_id)
            except MusterError as error:
                if not (error.retriable and error.data.get("status") in _PASSING):
                    raise
                problem = error
            except _LOST as error:
                sent = not isinstance(error, _NOT_SENT)
                problem = unreachable(self.url, error, correlation_id)
                if isinstance(problem, NotTrusted):
                    raise problem from None
                self.ask_another()
            pause_s = pauses.next_s(problem.retry_after_s)
            if (sent and not repeat) or time.monotonic() + pause_s > until_s:
                raise problem
            await asyncio.sleep(pause_s)

    async def _once(
        self, method: str, path: str, query: Mapping[str, Any] | None, body: Any, correlation_id: str
    ) -> Any:
        given = {name: str(value) for name, value in (query or {}).items() if value is not None}
        headers = self._headers | {"X-Correlation-Id": correlation_id}
        data = None if body is None else io.BytesIO(msgspec.json.encode(body))
        if data is not None:
            headers["Content-Type"] = "application/json"
        async with self._opened().request(
            method, self.url + path, params=given, data=data, headers=headers, ssl=self._trust
        ) as answer:
            raw = await answer.read()
            said = decoded(raw)
            if answer.status in _AWAY and not isinstance(said, dict):  # a proxy, in the place of one that is away
                raise Unreachable(f"{self.url} answered {answer.status}", status=answer.status)
            if answer.status >= _ERROR:
                raise error_of(said, status=answer.status, correlation_id=correlation_id)
            return said

    @asynccontextmanager
    async def file(self, where: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Read what lies at a path of the control plane, or at an address elsewhere, which is shown no token."""
        ours = where.startswith("/")
        url = self.url + where if ours else where
        headers = self._headers if ours else {"User-Agent": self._headers["User-Agent"]}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=self._timeout_s)
        try:
            async with self._opened().get(url, headers=headers, timeout=timeout, ssl=self._trust) as answer:
                if answer.status >= _ERROR:
                    raise error_of(decoded(await answer.read()), status=answer.status)
                yield answer.content.iter_chunked(65_536)
        except _LOST as error:
            raise unreachable(url, error) from None

    async def socket(self, path: str) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket that notices when the other side falls silent."""
        try:
            return await self._opened().ws_connect(
                self.url + path,
                headers={name: value for name, value in self._headers.items() if name != "Accept"},
                heartbeat=_HEARTBEAT_S,
                max_msg_size=_MESSAGE_BYTES_MAX,
                ssl=self._trust,
            )
        except aiohttp.WSServerHandshakeError as error:
            if error.status in _PASSING:
                raise unreachable(self.url, error) from None
            raise error_of(None, status=error.status) from None
        except _LOST as error:
            raise unreachable(self.url, error) from None

    @property
    def _trust(self) -> ssl.SSLContext | bool:
        return self._tls or True

    def _opened(self) -> aiohttp.ClientSession:
        """Return the session; it belongs to the loop in which it is first used."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=_CONNECT_S),
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS_MAX),
            )
        return self._session


def unreachable(url: str, error: BaseException, correlation_id: str | None = None) -> Unreachable:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = "name the authority that signed it: ca_file, or MUSTER_CA_FILE"
        return NotTrusted(f"the certificate of {url} is not to be trusted ({error.certificate_error}); {why}")
    why = "it did not answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return Unreachable(f"no control plane answers at {url} ({why})", correlation_id=correlation_id)


def decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw) if raw else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _new_correlation_id() -> str:
    return f"cli-{base32(random.getrandbits(60), 12)}"  # a name, not a secret


def _address(url: str) -> str:
    url = url.strip()
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a control plane: give http://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
