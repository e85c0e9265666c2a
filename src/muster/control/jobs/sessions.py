"""Which capability class each worker's session has, whichever control plane it was opened at.

Behind a load balancer the calls of one worker come through all control planes. One that does not know the class cannot
let a claim wait, so each tells the others; what is not heard is told again when the worker is asked to open anew.
"""

import asyncio
from collections import OrderedDict

import structlog

from muster.errors import MusterError
from muster.ids import SessionId
from muster.ports import Bus

log = structlog.get_logger()

SESSIONS_TOPIC = "sessions"

_SESSIONS_MAX = 50_000
_RETRY_S = 0.5


class SessionClasses:
    """A Lifecycle."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._class_of: OrderedDict[SessionId, str] = OrderedDict()
        self._listener: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen(), name="sessions of other control planes")

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
            self._listener = None

    def get(self, session_id: SessionId) -> str | None:
        return self._class_of.get(session_id)

    async def opened(self, session_id: SessionId, class_id: str) -> None:
        self._note(session_id, class_id)
        try:
            await self._bus.publish(SESSIONS_TOPIC, f"{session_id} {class_id}".encode())
        except MusterError as error:
            log.debug("session_not_told", session_id=session_id, error=error.message)

    def closed(self, session_id: SessionId) -> None:
        """Forget it here; elsewhere it is the store that no longer knows it."""
        self._class_of.pop(session_id, None)

    def _note(self, session_id: SessionId, class_id: str) -> None:
        self._class_of[session_id] = class_id
        self._class_of.move_to_end(session_id)
        if len(self._class_of) > _SESSIONS_MAX:
            self._class_of.popitem(last=False)

    async def _listen(self) -> None:
        told = False
        while True:
            try:
                async for data in self._bus.subscribe(SESSIONS_TOPIC):
                    told = False
                    session_id, _, class_id = data.decode().partition(" ")
                    self._note(SessionId(session_id), class_id)
            except MusterError as error:
                if not told:
                    log.warning("other_sessions_not_heard", error=error.message)
                told = True
            await asyncio.sleep(_RETRY_S)
