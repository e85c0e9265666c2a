"""The node's pulse: registers, reports, tells events, and starts over by itself whenever the control plane was away."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import structlog

from muster.agent.backoff import Backoff
from muster.agent.outbox import Outbox
from muster.clock import Clock, Rng
from muster.domain.event import Event
from muster.errors import Forbidden, MusterError, Unauthorized
from muster.ids import NodeId
from muster.ports import NodeLink
from muster.wire import AgentEvents, Heartbeat, HeartbeatReply, Registration
from muster.wire.packing import packed

log = structlog.get_logger()

_EVENTS_PER_CALL = 100
_RETRY_S_MAX = 30.0
_GAP_S_MAX = 1.0  # between heartbeats that news hurries along
_INTERVAL_S_MIN = 0.1
_WHEN_REFUSED = "set MUSTER_TOKEN to one that an admin makes: muster token create NAME --role agent --join"


class Pulse:
    """What is sent is made at the moment of sending: a heartbeat that could not be sent is never sent later."""

    def __init__(
        self,
        node_id: NodeId,
        link: NodeLink,
        registration: Callable[[], Registration],
        sample: Callable[[], Awaitable[Heartbeat]],
        outbox: Outbox,
        on_reply: Callable[[HeartbeatReply], None],
        clock: Clock,
        rng: Rng,
        *,
        interval_s: float,
    ) -> None:
        self._node_id = node_id
        self._link = link
        self._registration = registration
        self._sample = sample
        self._outbox = outbox
        self._on_reply = on_reply
        self._clock = clock
        self._rng = rng
        self._interval_s = interval_s
        self._pause_s = interval_s
        # Trying more seldom than a heartbeat is due would spare the control plane nothing.
        longest_s = min(_RETRY_S_MAX, max(1.0, interval_s))
        self._backoff = Backoff(base_s=min(1.0, interval_s), max_s=longest_s)
        self._failures = 0
        self._registered = False
        self._packs = False  # whether the control plane understands it
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._beat_on(), name="pulse")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def hurry(self) -> None:
        """Beat soon: something changed that should be seen before the next regular heartbeat."""
        self._news.set()

    async def beat_now(self) -> None:
        """Tell the present state and all events, once, outside the rhythm; raises MusterError."""
        await self._beat()
        await self._tell_events()

    async def _beat_on(self) -> None:
        while True:
            started_s = self._clock.monotonic_s()
            try:
                await self._turn()
                self._failures = 0
                await self._pause(started_s)
            except MusterError as error:
                await self._rest(error)
            except Exception as error:
                log.exception("pulse_fault")  # a fault of ours must not make a live node look dead
                await self._rest(MusterError(str(error)))

    async def _turn(self) -> None:
        self._news.clear()  # before looking, so that no news falls between
        if not self._registered:
            await self._link.register(self._registration())
            self._registered = True
            log.info("registered", node_id=self._node_id, failures_before=self._failures)
        await self._beat()
        await self._tell_events()

    async def _beat(self) -> None:
        heartbeat = await self._sample()
        if self._packs:
            heartbeat = packed(heartbeat)
        self._registered = self._packs = False  # until we hear otherwise: who did not answer may be another by now
        reply = await self._link.heartbeat(heartbeat)
        self._registered, self._packs = reply.known, reply.takes_packed
        self._pause_s = max(_INTERVAL_S_MIN, min(self._interval_s, reply.next_heartbeat_ms / 1000))
        self._on_reply(reply)

    async def _tell_events(self) -> None:
        while events := self._outbox.batch(_EVENTS_PER_CALL):
            try:
                log.info(_publishing(events))
                await self._link.report_events(AgentEvents(node_id=self._node_id, events=events))
            except MusterError as error:
                if error.retriable:
                    raise
                log.error("events_refused", count=len(events), error=error.message)  # noqa: TRY400  # its words say it all
            self._outbox.taken(events)

    async def _pause(self, started_s: float) -> None:
        """Wait for the next turn; news shortens it, but not to less than a gap."""
        gap_s = min(_GAP_S_MAX, self._pause_s / 4)
        await asyncio.sleep(gap_s)
        left_s = started_s + self._pause_s - self._clock.monotonic_s()
        if not self._registered or left_s <= 0:
            return
        try:
            async with asyncio.timeout(left_s):
                await self._news.wait()
        except TimeoutError:
            return

    async def _rest(self, error: MusterError) -> None:
        self._failures += 1
        delay_s = self._backoff.delay_s(self._failures, self._rng)
        facts = {"error": error.message, "attempt": self._failures, "retry_in_s": round(delay_s, 2)}
        if isinstance(error, Unauthorized | Forbidden):
            log.error("control_plane_refuses_us", **facts, next_step=_WHEN_REFUSED)
        else:
            log.warning("control_plane_not_reached", **facts)
        await asyncio.sleep(delay_s)


def _publishing(events: Sequence[Event]) -> str:
    """Say it in the words that people look for in a machine's log."""
    counts = Counter(event.kind for event in events)
    told = ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in counts.items())
    return f"Publishing {told} event{'s' if len(events) > 1 else ''}"
