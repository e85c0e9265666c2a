"""Machines that come up, told on the store's channel `machine:startup:events` for programs of others."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from muster.domain.event import Event
from muster.errors import MusterError
from muster.events.startup import CHANNEL, STARTUP_KINDS, startup_message

log = structlog.get_logger()

Publish = Callable[[str, bytes], Awaitable[None]]


class StartupChannel:
    def __init__(self, publish: Publish) -> None:
        self._publish = publish

    async def tell(self, events: Sequence[Event]) -> None:
        """Nobody has a right to these: what cannot be told now stays in the log of facts."""
        try:
            for event in events:
                if event.kind in STARTUP_KINDS:
                    await self._publish(CHANNEL, msgspec.json.encode(startup_message(event)))
        except MusterError as error:
            log.warning("startup_channel_away", error=error.message)
