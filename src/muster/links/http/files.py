"""An attempt's files over HTTP, whatever link its agent has: a stream of bytes is what HTTP is good at."""

import asyncio
import http
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

import aiohttp

from muster.domain.file import FileRef, parse_file_url
from muster.errors import MusterError, UpstreamFailed, UpstreamTimeout
from muster.ids import JobId
from muster.links.problems import error_told
from muster.wire import decode

_PATH = "/api/agent/files"
_CHUNK_BYTES = 256 * 1024
_REPLY_BYTES_MAX = 64 * 1024


class HttpFiles:
    """A FileLink. `token` is asked for each time: a node that has just joined has another one than before."""

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession,
        token: Callable[[], str | None],
        *,
        tls: ssl.SSLContext | None = None,
        silence_s: float = 30.0,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._session = session
        self._token = token
        self._tls = tls or True
        self._silence_s = silence_s

    async def put_file(self, job_id: JobId, attempt: int, name: str, data: AsyncIterable[bytes]) -> FileRef:
        url = f"{self._base_url}{_PATH}/{quote(job_id)}/{attempt}/{name}"
        with self._named(url):
            async with asyncio.timeout(self._silence_s) as patience:
                async with self._session.put(
                    url,
                    data=_watched(data, patience, self._silence_s),
                    headers=self._headers(),
                    timeout=aiohttp.ClientTimeout(total=None),
                    allow_redirects=False,
                    ssl=self._tls,
                ) as response:
                    body = await response.content.read(_REPLY_BYTES_MAX)
                    if response.status != http.HTTPStatus.CREATED:
                        raise _refusal(url, response.status, body)
        return decode(body, FileRef)

    async def get_file(self, job_id: JobId, attempt: int, url: str) -> AsyncIterator[bytes]:
        owner, name = parse_file_url(url)
        address = f"{self._base_url}{_PATH}/{quote(job_id)}/{attempt}/{quote(owner, safe='~')}/{name}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._silence_s, sock_read=self._silence_s)
        with self._named(address):
            async with self._session.get(
                address, headers=self._headers(), timeout=timeout, allow_redirects=False, ssl=self._tls
            ) as response:
                if response.status != http.HTTPStatus.OK:
                    raise _refusal(address, response.status, await response.content.read(_REPLY_BYTES_MAX))
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    yield chunk

    def _headers(self) -> dict[str, str]:
        token = self._token()
        return {"Content-Type": "application/octet-stream"} | ({"Authorization": f"Bearer {token}"} if token else {})

    @contextmanager
    def _named(self, url: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise UpstreamTimeout(f"{url} was silent for {self._silence_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamFailed(f"{url} cannot be reached: {str(error) or type(error).__name__}") from None


async def _watched(data: AsyncIterable[bytes], patience: asyncio.Timeout, silence_s: float) -> AsyncIterator[bytes]:
    """Put the deadline off with every chunk that was taken."""
    async for chunk in data:
        yield chunk
        patience.reschedule(asyncio.get_running_loop().time() + silence_s)


def _refusal(url: str, status: int, body: bytes) -> MusterError:
    return error_told(body) or UpstreamFailed(f"{url} answered {status}")
