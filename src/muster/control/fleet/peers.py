"""What other control planes on the same store hear of nodes, and what they hear from us.

A beacon of our own that comes back proves that we hear. Without it silence means nothing here: not while the store is
away, not after this process was frozen, not when our subscription was lost. Once it comes back, what we missed is read
from the store.
"""

import asyncio

import structlog

from muster.clock import Clock
from muster.control.fleet.fleet import Fleet
from muster.control.recorder import Recorder
from muster.errors import MusterError
from muster.ports import Bus, NodeStore
from muster.rounds import Rounds, wait_up_to
from muster.wire import decode, encode
from muster.wire.peers import NodeNews, PlaneAbout

log = structlog.get_logger()

NODES_TOPIC = "nodes"

_BEACON_EVERY_S = 1.0
_DEAF_AFTER_S = 3.0
_PEER_KEPT_S = 10.0  # after its last beacon
_COMPARE_EVERY_S = 30.0  # for what got lost all the same
_BUS_RETRY_S = 0.5


class Peers:
    """A Lifecycle. A message is the id of its sender, a line end, and the news; in a beacon what it is, if anything."""

    def __init__(
        self,
        fleet: Fleet,
        recorder: Recorder,
        nodes: NodeStore,
        bus: Bus,
        clock: Clock,
        plane_id: str,
        about: PlaneAbout | None = None,
    ) -> None:
        self._fleet = fleet
        self._nodes = nodes
        self._bus = bus
        self._clock = clock
        self.plane_id = plane_id
        self._me = plane_id.encode()
        self._beacon = self._me + b"\n" + (encode(NodeNews(plane=about)) if about else b"")
        self._about = {self._me: about} if about else {}
        self._heard_s: dict[bytes, float] = {}  # other control planes, by their last message
        self._echo_s = clock.monotonic_s()
        self._hears = False  # a beacon of ours came back since we last subscribed
        self._missed = True  # something was told that may not have reached us
        self._due = asyncio.Event()
        self._compared_s = clock.monotonic_s()
        self._rounds = Rounds()
        recorder.on_written(self.tell)
        fleet.hears_by(self.deaf_for_s)

    @property
    def others(self) -> list[str]:
        """Ids of the other control planes that are heard at present, and of the gateway processes of all."""
        fresh_s = self._clock.monotonic_s() - _PEER_KEPT_S
        return sorted(sender.decode() for sender, at_s in self._heard_s.items() if at_s >= fresh_s)

    @property
    def planes(self) -> list[str]:
        """Ids of those of them that are whole control planes."""
        return [one for one in self.others if (about := self.about(one)) is None or not about.gateway_of]

    def siblings(self) -> list[str]:
        """Return those that share the port of our gateway."""
        first = self._port_of(self._me.decode())
        return [one for one in self.others if self._port_of(one) == first]

    def _port_of(self, plane_id: str) -> str:
        """Return the control plane whose port it serves."""
        about = self.about(plane_id)
        return plane_id if about is None or not about.gateway_of else about.gateway_of

    def about(self, plane_id: str) -> PlaneAbout | None:
        """Return what a control plane that is heard tells of itself; None where that is nothing."""
        return self._about.get(plane_id.encode())

    def deaf_for_s(self) -> float | None:
        """Return for how long our own beacon has not come back, if that is too long or something was missed."""
        quiet_s = self._clock.monotonic_s() - self._echo_s
        self._missed |= quiet_s > _DEAF_AFTER_S
        return quiet_s if self._missed else None

    async def start(self) -> None:
        if not self._rounds:
            self._echo_s = self._clock.monotonic_s()
            self._rounds.go("peers", self._listen, _BUS_RETRY_S)
            self._rounds.go("beacon", self._speak, 0, _BEACON_EVERY_S)

    async def stop(self) -> None:
        await self._rounds.stop()

    async def tell(self, news: NodeNews) -> None:
        """Publish what was written, unless we would hear of anybody else if there was one."""
        if self.others or self._missed:
            await self._bus.publish(NODES_TOPIC, self._me + b"\n" + encode(news))

    def take(self, message: bytes) -> None:
        """Take in a message from the bus, be it our own."""
        sender, _, body = message.partition(b"\n")
        if sender == self._me:
            self._echo_s, self._hears = self._clock.monotonic_s(), True
            if self._missed:
                self._due.set()
            return
        if sender not in self._heard_s:
            log.info("control_plane_heard", plane_id=sender.decode(errors="replace"))
        self._heard_s[sender] = self._clock.monotonic_s()
        if body:
            try:
                self._take_news(sender, decode(body, NodeNews))
            except MusterError as error:
                log.warning("news_of_nodes_not_understood", error=error.message)

    def _take_news(self, sender: bytes, news: NodeNews) -> None:
        if news.plane is not None:
            self._about[sender] = news.plane
        else:
            self._fleet.take_in(news)

    def gap(self) -> None:
        """Know that messages were missed, and that none will come until we hear ourselves again."""
        self._hears, self._missed = False, True

    async def beat(self) -> None:
        """Send a beacon; catch up when the last one came back, or when it is time to."""
        now_s = self._clock.monotonic_s()
        for sender in [sender for sender, at_s in self._heard_s.items() if at_s < now_s - _PEER_KEPT_S]:
            log.info("control_plane_silent", plane_id=sender.decode(errors="replace"))
            del self._heard_s[sender]
            self._about.pop(sender, None)
        if self._hears and now_s - self._echo_s <= _DEAF_AFTER_S:
            due = self._heard_s and now_s - self._compared_s >= _COMPARE_EVERY_S
            if self._missed or due:
                await self._compare()
        await self._bus.publish(NODES_TOPIC, self._beacon)

    async def _compare(self) -> None:
        asked_ms, self._compared_s, missed = self._clock.now_ms(), self._clock.monotonic_s(), self._missed
        self._missed = False  # what is missed from now on is another matter
        try:
            self._fleet.compare(await self._nodes.load(), asked_ms)
        except MusterError:
            self._missed = True
            raise
        if missed and self.deaf_for_s() is None:
            self._fleet.hears_again()

    async def _speak(self) -> None:
        self._due.clear()
        await self.beat()
        await wait_up_to(self._due, _BEACON_EVERY_S)

    async def _listen(self) -> None:
        try:
            async for message in self._bus.subscribe(NODES_TOPIC):
                self.take(message)
        finally:
            self.gap()
