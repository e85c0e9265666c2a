"""Posting to a receiver: one try with a deadline, no redirects, and never into our own networks unawares."""

import errno
import socket
from collections.abc import Mapping
from time import monotonic

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

import muster
from muster.errors import InvalidInput
from muster.webhooks.address import why_not
from muster.webhooks.outcome import Answer
from muster.webhooks.wanted import check_url

_CONNECTIONS_MAX = 64
_EXCERPT_BYTES = 300
_USER_AGENT = f"Muster/{muster.__version__} (webhooks)"


class WebhookPost:
    """A Lifecycle. Names are looked up for each connection, and what they stand for is judged each time."""

    def __init__(self, *, timeout_s: float, private: bool) -> None:
        self._timeout_s = timeout_s
        self._private = private
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        resolver = aiohttp.ThreadedResolver()
        connector = aiohttp.TCPConnector(
            resolver=resolver if self._private else _PublicOnly(resolver),
            limit=_CONNECTIONS_MAX,
            use_dns_cache=False,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
        )

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return what came of it; nothing that a receiver does raises."""
        started_s = monotonic()
        try:
            check_url(url, private=self._private)
            answer = await self._posted(url, headers, body)
        except InvalidInput as error:
            answer = Answer(error=error.message)
        except TimeoutError:
            answer = Answer(error=f"no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            answer = Answer(error=str(error) or type(error).__name__)
        took_ms = round((monotonic() - started_s) * 1000)
        return Answer(
            status=answer.status,
            error=answer.error,
            excerpt=answer.excerpt,
            retry_after_s=answer.retry_after_s,
            took_ms=took_ms,
        )

    async def _posted(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if self._session is None:
            return Answer(error="this control plane is being stopped")
        sent = {"Content-Type": "application/json", "User-Agent": _USER_AGENT, **headers}
        async with self._session.post(url, data=body, headers=sent, allow_redirects=False) as response:
            excerpt = await response.content.read(_EXCERPT_BYTES)
            return Answer(
                status=response.status,
                excerpt=excerpt.decode(errors="replace").strip(),
                retry_after_s=_seconds(response.headers.get("Retry-After", "")),
            )


class _PublicOnly(AbstractResolver):
    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for result in found:
            if why := why_not(result["host"]):
                text = f"{host} leads into our own networks: {why} (setting webhook_private_addresses)"
                raise OSError(errno.EACCES, text)
        return found

    async def close(self) -> None:
        await self._inner.close()


def _seconds(text: str) -> float | None:
    """Read a Retry-After in seconds; a date is as good as none."""
    return float(text) if text.isascii() and text.isdigit() else None
