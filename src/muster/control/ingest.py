"""What agents say, stamped with our own time and handed to the registry."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from muster.clock import Clock
from muster.control.artifacts import ArtifactDirectory
from muster.control.commands import CommandService
from muster.control.fleet.fleet import Fleet
from muster.control.recorder import Recorder
from muster.domain.event import Event
from muster.errors import Forbidden, InvalidInput
from muster.ids import check_node_id
from muster.wire import (
    AgentEvents,
    ArtifactQuery,
    ArtifactReply,
    CommandBatch,
    CommandPoll,
    CommandReports,
    Deregistration,
    Heartbeat,
    HeartbeatReply,
    Join,
    Joined,
    LogChunk,
    LogChunkReply,
    Registration,
    RegistrationReply,
)
from muster.wire.packing import unpacked

Announce = Callable[[Sequence[Event]], Awaitable[None]]

_INTERVAL_S_MAX = 3600.0
_EVENTS_MAX = 1000

TakeLogs = Callable[[LogChunk], Awaitable[LogChunkReply]]


class Ingest:
    """A NodeLink: every link ends here. `link` is the name under which a node's record says how it came."""

    def __init__(
        self,
        fleet: Fleet,
        commands: CommandService,
        recorder: Recorder,
        clock: Clock,
        *,
        link: str,
        take_logs: TakeLogs | None = None,
        announce: Announce | None = None,
        artifacts: ArtifactDirectory | None = None,
    ) -> None:
        """`announce` hears the events of agents as well; `artifacts` is the one that all links share."""
        self._take_logs = take_logs
        self._announce = announce
        self._fleet = fleet
        self._commands = commands
        self._recorder = recorder
        self._clock = clock
        self.link = link
        self.heartbeats = 0
        self.registrations = 0
        self._artifacts = artifacts or ArtifactDirectory(fleet, clock)

    async def register(self, message: Registration) -> RegistrationReply:
        check_node_id(message.facts.node_id)
        _check_interval(message.heartbeat_interval_s)
        self.registrations += 1
        now_ms = self._clock.now_ms()
        self._fleet.carry_out(self._fleet.book.registered(message, self.link, now_ms))
        return RegistrationReply(
            node_id=message.facts.node_id, next_heartbeat_ms=round(message.heartbeat_interval_s * 1000)
        )

    async def heartbeat(self, message: Heartbeat) -> HeartbeatReply:
        _check_interval(message.heartbeat_interval_s)  # and the book checks the names of nodes it does not know yet
        self.heartbeats += 1
        message = unpacked(message)
        heard = self._fleet.book.heard(message, self.link, self._clock.now_ms())
        self._fleet.carry_out(heard.effects)
        node = self._fleet.book.get(message.facts.node_id)
        return HeartbeatReply(
            next_heartbeat_ms=round(message.heartbeat_interval_s * 1000),
            known=heard.verdict != "created",
            superseded=heard.verdict == "superseded",
            draining=node.draining if node else False,
            takes_packed=True,
        )

    async def report_events(self, message: AgentEvents) -> None:
        """Keep an agent's own facts in the log, at our time and under its own name only."""
        check_node_id(message.node_id)
        if len(message.events) > _EVENTS_MAX:
            raise InvalidInput(f"at most {_EVENTS_MAX} events at a time, got {len(message.events)}", field="events")
        now_ms = self._clock.now_ms()
        events = [msgspec.structs.replace(event, key=message.node_id, at_ms=now_ms) for event in message.events]
        self._recorder.emit(events)
        if self._announce is not None:
            await self._announce(events)

    async def deregister(self, message: Deregistration) -> None:
        check_node_id(message.node_id)
        now_ms = self._clock.now_ms()
        self._fleet.carry_out(self._fleet.book.deregistered(message.node_id, message.boot_id, message.reason, now_ms))

    async def next_commands(self, message: CommandPoll) -> CommandBatch:
        return await self._commands.next_commands(message)

    async def report_commands(self, message: CommandReports) -> None:
        await self._commands.report(message)

    async def tell_logs(self, message: LogChunk) -> LogChunkReply:
        if self._take_logs is None:
            return LogChunkReply(wanted=False)
        return await self._take_logs(message)

    async def find_artifacts(self, message: ArtifactQuery) -> ArtifactReply:
        return self._artifacts.find(message)

    async def join(self, message: Join) -> Joined:
        """Refuse: whoever gets as far as here was let in without a token of its own."""
        raise Forbidden(f"nothing asks {message.node_id!r} for a token here, so there is nothing to join with")


class Ingests:
    """Makes an Ingest for each kind of link, and knows them all."""

    def __init__(
        self,
        fleet: Fleet,
        commands: CommandService,
        recorder: Recorder,
        clock: Clock,
        take_logs: TakeLogs | None = None,
        announce: Announce | None = None,
    ) -> None:
        self._parts = (fleet, commands, recorder, clock)
        self._take_logs = take_logs
        self._announce = announce
        self._artifacts = ArtifactDirectory(fleet, clock)
        self.made: list[Ingest] = []

    def __call__(self, link: str) -> Ingest:
        made = Ingest(
            *self._parts, link=link, take_logs=self._take_logs, announce=self._announce, artifacts=self._artifacts
        )
        self.made.append(made)
        return made


def _check_interval(interval_s: float) -> None:
    if not 0 < interval_s <= _INTERVAL_S_MAX:
        raise InvalidInput(
            f"heartbeat_interval_s must be above 0 and at most {_INTERVAL_S_MAX:g}, got {interval_s:g}",
            field="heartbeat_interval_s",
        )
