"""Which capability class each worker's session has, whichever control plane it was opened at.

Behind a load balancer the calls of one worker come through all control planes. One that does not know the class cannot
let a claim wait, so each tells the others; what is not heard is told again when the worker is asked to open anew.
"""

from collections import OrderedDict
from collections.abc import Callable

import structlog

from muster.errors import MusterError
from muster.ids import SessionId
from muster.ports import Bus
from muster.rounds import Rounds

log = structlog.get_logger()

SESSIONS_TOPIC = "sessions"

_SESSIONS_MAX = 50_000
_RETRY_S = 0.5


class SessionClasses:
    """A Lifecycle."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._class_of: OrderedDict[SessionId, str] = OrderedDict()
        self._on_change: Callable[[SessionId], None] = lambda _: None
        self._rounds = Rounds()

    async def start(self) -> None:
        self._rounds.go("sessions_of_others", self._listen, _RETRY_S)

    async def stop(self) -> None:
        await self._rounds.stop()

    def on_change(self, listener: Callable[[SessionId], None]) -> None:
        """Be told of a session whose class is another than before, whichever control plane was told."""
        self._on_change = listener

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
        before = self._class_of.get(session_id)
        self._class_of[session_id] = class_id
        self._class_of.move_to_end(session_id)
        if len(self._class_of) > _SESSIONS_MAX:
            self._class_of.popitem(last=False)
        if before not in {None, class_id}:
            self._on_change(session_id)

    async def _listen(self) -> None:
        async for data in self._bus.subscribe(SESSIONS_TOPIC):
            session_id, _, class_id = data.decode().partition(" ")
            self._note(SessionId(session_id), class_id)
