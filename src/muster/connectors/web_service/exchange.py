"""Requests to one service: bounded in time and size, never elsewhere, each failure told from a refusal."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec

from muster.connectors.engine import error_text, failures_named
from muster.connectors.web_service.config import WebRequest, WebService
from muster.domain.file import ending_of
from muster.errors import InvalidInput, PayloadTooLarge, UpstreamFailed
from muster.ports import JobFiles

_BAD_REQUEST = 400
_REDIRECT = 300
_EXCERPT_CHARS = 500
_ERROR_BYTES_MAX = 65_536
_CONNECT_S = 5.0
_TEXT_CHARS_MAX = 1_000_000


class Exchange:
    def __init__(
        self, session: aiohttp.ClientSession, base: str, config: WebService, headers: Mapping[str, str]
    ) -> None:
        self._session = session
        self._base = base
        self.config = config
        self._headers = headers

    @asynccontextmanager
    async def asking(
        self, path: str, method: str, asked: WebRequest | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open an answer that is no error; redirects are one, for they could lead anywhere."""
        url, silence_s = self._base + path, self.config.silence_s
        body = None if asked is None or asked.body is None else msgspec.json.encode(asked.body)
        headers = dict(self._headers) | ({"Content-Type": "application/json"} if body is not None else {})
        query = {key: _spelled(value) for key, value in asked.query.items()} if asked else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=silence_s)
        with failures_named(url, f"for {silence_s:g} s"):
            async with self._session.request(
                method, url, params=query, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status >= _REDIRECT:
                    raise await self._refusal(response, url)
                yield response

    async def read(self, response: aiohttp.ClientResponse) -> bytes:
        data = bytearray()
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > self.config.answer_bytes_max:
                raise PayloadTooLarge(
                    f"{self.config.name} answered more than {self.config.answer_bytes_max} bytes (answer_bytes_max)"
                )
        return bytes(data)

    async def ask(self, path: str, method: str, asked: WebRequest | None = None) -> Any:
        async with self.asking(path, method, asked) as response:
            data = await self.read(response)
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UpstreamFailed(f"{self._base}{path} answered something that is not JSON") from None

    async def ask_for_result(self, path: str, method: str, asked: WebRequest, files: JobFiles) -> Any:
        """Return JSON as it is, a text as `{text}`, and anything else as a file."""
        async with self.asking(path, method, asked) as response:
            data = await self.read(response)
            kind = response.content_type
        if not data:
            return None
        if kind == "application/json" or kind.endswith("+json"):
            try:
                return msgspec.json.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise UpstreamFailed(f"{self._base}{path} answered something that is not the JSON it said") from None
        if kind.startswith("text/") and len(data) <= _TEXT_CHARS_MAX:
            return {"text": data.decode(errors="replace")}
        return {"file": await files.put(f"answer.{ending_of(kind)}", data)}

    async def tell(self, path: str, method: str, within_s: float) -> None:
        """Say something whose answer does not matter."""
        async with asyncio.timeout(within_s), self.asking(path, method):
            pass

    async def _refusal(self, response: aiohttp.ClientResponse, url: str) -> Exception:
        data = await response.content.read(_ERROR_BYTES_MAX)
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            value = None
        reason = error_text(value) or data[:_EXCERPT_CHARS].decode(errors="replace").strip() or "no reason given"
        status = response.status
        if status in self.config.retried:
            after_s = retry_after_s(response.headers.get("Retry-After", ""), datetime.now(UTC))
            return UpstreamFailed(f"{url} answered {status}: {reason}", retry_after_s=after_s)
        if status < _BAD_REQUEST:
            return InvalidInput(f"{url} leads elsewhere ({status}), and no redirect is followed")
        return InvalidInput(f"{url} refused this job ({status}): {reason}")


def retry_after_s(text: str, now: datetime) -> float | None:
    """Read `Retry-After`: seconds, or a date (RFC 9110, 10.2.3)."""
    if text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
