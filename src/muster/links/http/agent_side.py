"""An agent's calls as HTTP requests."""

import asyncio
import http
import ssl

import aiohttp

from muster.errors import Forbidden, InvalidInput, MusterError, Unauthorized, UpstreamFailed, UpstreamTimeout
from muster.links.calls import Call, CallingLink, M, R, wait_s_of
from muster.links.http.control_side import PREFIX
from muster.links.problems import error_told
from muster.wire import decode, encode

_REPLY_BYTES_MAX = 64 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_SHOWN_CHARS = 200
_NO_TIMEOUT = aiohttp.ClientTimeout()  # the deadline of the whole call counts


class HttpLink(CallingLink):
    """A Lifecycle. Each call has a deadline; one that waits for work or commands allows for that as well."""

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession,
        token: str | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """`tls` says whom to trust instead of the system's authorities."""
        self._base_url = base_url.rstrip("/")
        self._session = session
        self._tls = tls or True
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    async def start(self) -> None:
        """Open nothing: each call finds a connection, or makes one."""

    async def stop(self) -> None:
        """Close nothing: connections belong to the session."""

    async def _call(self, call: Call[M, R], message: M) -> R:
        url = f"{self._base_url}{PREFIX}{call.name}"
        wait_s = wait_s_of(message)
        deadline_s = self._timeout_s + wait_s
        data = encode(message)
        try:
            async with asyncio.timeout(deadline_s):
                try:
                    status, body = await self._post(url, data)
                except aiohttp.ServerDisconnectedError:
                    if wait_s:
                        raise
                    # Most likely a connection that idled too long, closed as we took it; every call may be repeated.
                    status, body = await self._post(url, data)
        except TimeoutError:
            raise UpstreamTimeout(f"{url} did not answer within {deadline_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamFailed(f"{url} cannot be reached: {str(error) or type(error).__name__}") from error
        if status == http.HTTPStatus.NO_CONTENT:
            body = b"null"
        elif status != http.HTTPStatus.OK:
            raise _error(url, status, body)
        try:
            return decode(body, call.reply)
        except InvalidInput as error:
            raise UpstreamFailed(f"{url} answered something else than was asked for: {error.message}") from None

    async def _post(self, url: str, data: bytes) -> tuple[int, bytes]:
        async with self._session.post(
            url, data=data, headers=self._headers, timeout=_NO_TIMEOUT, allow_redirects=False, ssl=self._tls
        ) as response:
            return response.status, await _read(response, url)


async def _read(response: aiohttp.ClientResponse, url: str) -> bytes:
    chunks = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        chunks += chunk
        if len(chunks) > _REPLY_BYTES_MAX:
            raise UpstreamFailed(f"{url} answered more than {_REPLY_BYTES_MAX} bytes")
    return bytes(chunks)


def _error(url: str, status: int, body: bytes) -> MusterError:
    """Make the control plane's error anew; what is not in its words is a fault on the way."""
    if (error := error_told(body)) is not None:
        return error
    if (kind := _BY_STATUS.get(status)) is not None:
        return kind(f"{url} answered {status}")
    shown = body[:_SHOWN_CHARS].decode(errors="replace")
    return UpstreamFailed(f"{url} answered {status}, not as a Muster control plane does: {shown}")


# A proxy in between refuses in its own words.
_BY_STATUS: dict[int, type[MusterError]] = {
    http.HTTPStatus.UNAUTHORIZED: Unauthorized,
    http.HTTPStatus.FORBIDDEN: Forbidden,
}
