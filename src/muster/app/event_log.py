"""The monitor's live events in a file, one a line: what a monitor was told, and when it was cut off."""

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import msgspec
import structlog
from msgspec import Struct

from muster.agent.services.log_file import LogFile
from muster.errors import MusterError
from muster.sse import SNAPSHOT_BYTES_MAX, EventReader

log = structlog.get_logger()

_PATH = "/api/events/monitor"
_SILENCE_S = 45.0  # the control plane says something at least every 15 s
_CONNECT_S = 5.0
_AGAIN_S = 1.0
_LOG_BYTES_MAX = 64 * 1024 * 1024
_LINES_PER_LOOK = 500  # at the size of the file

Heard = Callable[[dict[str, Any]], None]


class Way(Struct, frozen=True, kw_only=True):
    """How the control plane is reached; `tls`: whom to trust instead of the system's authorities."""

    url: str
    token: str = ""
    tls: ssl.SSLContext | None = None


class EventLog:
    """A Lifecycle. `heard` gets every message as well; a lost connection is taken up where it broke off."""

    def __init__(self, way: Way, path: Path, heard: Heard = lambda _: None) -> None:
        self._way = way
        self._log_file = LogFile(path, _LOG_BYTES_MAX)
        self._heard = heard
        self._last_id: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raise OSError when the file cannot be written."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow_on(self._log_file.open()), name="event-log")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _follow_on(self, file: BinaryIO) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
        with file:
            async with aiohttp.ClientSession(timeout=timeout) as session:
                while True:
                    try:  # TimeoutError is one of OSError
                        await self._follow(session, file)
                        reason = "the stream ended"
                    except (aiohttp.ClientError, MusterError, OSError, ValueError) as error:
                        reason = str(error) or type(error).__name__
                    _note(file, "disconnected", reason)
                    log.info("event_log_disconnected", reason=reason, retry_in_s=_AGAIN_S)
                    await asyncio.sleep(_AGAIN_S)

    async def _follow(self, session: aiohttp.ClientSession, file: BinaryIO) -> None:
        headers = {"Accept": "text/event-stream"}
        if self._way.token:
            headers["Authorization"] = f"Bearer {self._way.token}"
        if self._last_id is not None:
            headers["Last-Event-ID"] = self._last_id
        url = self._way.url + _PATH
        async with session.get(url, headers=headers, ssl=self._way.tls or True) as answer:
            answer.raise_for_status()
            _note(file, "connected", url)
            count = 0
            reader = EventReader(SNAPSHOT_BYTES_MAX)
            async for chunk in answer.content.iter_any():
                for event in reader.feed(chunk):
                    file.write(event.data + b"\n")
                    self._last_id = event.id or self._last_id
                    self._heard(msgspec.json.decode(event.data))
                    count += 1
                    if count % _LINES_PER_LOOK == 0:
                        await asyncio.to_thread(self._log_file.rotate_if_large)


def _note(file: BinaryIO, what: str, about: str) -> None:
    """Say in the file itself where it has gaps."""
    note = {"type": "event_log", "state": what, "about": about, "timestamp": round(time.time() * 1000)}
    file.write(msgspec.json.encode(note) + b"\n")
