"""A hive's heartbeat as an HTTP request to its queen."""

import asyncio
import http
import ssl

import aiohttp

from muster.errors import UpstreamFailed, UpstreamTimeout
from muster.wire import encode
from muster.wire.hives import HiveHeartbeat

PATH = "/v1/hive-heartbeat"
_EXCERPT_BYTES = 200


class HttpQueen:
    """`token` is for the queen alone: it may be somebody else's."""

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        token: str = "",
        *,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        self._url = url.rstrip("/") + PATH
        self._session = session
        self._tls = tls or True
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    async def send(self, message: HiveHeartbeat) -> None:
        """Raise UpstreamTimeout when it does not answer in time, UpstreamFailed when it refuses or is not there."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._post(encode(message))
        except TimeoutError:
            raise UpstreamTimeout(f"{self._url} did not answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamFailed(f"{self._url} cannot be reached: {str(error) or type(error).__name__}") from error

    async def _post(self, data: bytes) -> None:
        async with self._session.post(
            self._url, data=data, headers=self._headers, allow_redirects=False, ssl=self._tls
        ) as answer:
            if answer.status >= http.HTTPStatus.MULTIPLE_CHOICES:
                shown = (await answer.content.read(_EXCERPT_BYTES)).decode(errors="replace")
                raise UpstreamFailed(f"{self._url} answered {answer.status}: {shown}")
