"""A node of a simulated world: boots, speaks of itself, runs workers; can crash, stop, and start again."""

from functools import partial

from muster.domain.capability import Capability
from muster.domain.model import Model
from muster.domain.node import NodeFacts
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.ids import NodeId
from muster.sim.checkers import Living
from muster.sim.worker import SimWorker, Surroundings
from muster.wire import Deregistration, Heartbeat, HeartbeatReply, Registration

MODEL = "smollm2"
SERVICE_SLOTS = 4


class SimAgent:
    def __init__(
        self, around: Surroundings, node_id: NodeId, *, interval_s: float, workers: int, capability: Capability
    ) -> None:
        self._around = around
        self.node_id = node_id
        self._facts = NodeFacts(node_id=node_id, address=f"{node_id}.test")
        self._interval_s = interval_s
        self._workers_count = workers
        self._capability = capability
        self._boots = 0
        self._seq = 0
        self._workers: list[SimWorker] = []
        self.up = False
        self._left_ms: int | None = None
        self._superseded = False
        service = Service(
            name="llm",
            connector="openai",
            status=ServiceStatus.RUNNING,
            url="http://127.0.0.1:8000",
            dialects=(Dialect.OPENAI,),
            models=(Model(name=MODEL, resident=True),),
            slots=SERVICE_SLOTS,
        )
        self._services = (service,) if workers else ()

    @property
    def boot_id(self) -> str:
        return f"{self.node_id}-boot-{self._boots}"

    def boot(self) -> None:
        self._boots += 1
        self._seq = 0
        self.up = True
        self._left_ms = None
        self._around.stories.tell(self.node_id, f"boots as {self.boot_id}")
        self._workers = [
            SimWorker(self._around, self.node_id, self.boot_id, index, self._capability)
            for index in range(self._workers_count)
        ]
        self._register()
        self._beat(self._boots)
        for worker in self._workers:
            worker.open()
            worker.keep_renewing()

    def crash(self) -> None:
        self._around.stories.tell(self.node_id, "crashes")
        self._down()

    def stop(self) -> None:
        """Stop cleanly, as far as the network lets it be heard."""
        self._around.stories.tell(self.node_id, "stops")
        for worker in self._workers:
            worker.close()
        message = Deregistration(node_id=self.node_id, boot_id=self.boot_id)
        self._around.network.call(
            self.node_id, lambda plane: plane.deregister(message), partial(self._left, self._boots), _nothing
        )
        self._down()

    def _left(self, boot: int, _: object) -> None:
        if boot == self._boots:
            self._left_ms = self._around.timeline.now_ms()

    def living(self) -> Living:
        return Living(self.node_id, self.boot_id, left_ms=self._left_ms, superseded=self._superseded)

    def _down(self) -> None:
        self.up = False
        for worker in self._workers:
            worker.stop()

    def _register(self) -> None:
        """Announce this boot, once: should it be lost, heartbeats say as much."""
        message = Registration(facts=self._facts, boot_id=self.boot_id, heartbeat_interval_s=self._interval_s)
        self._around.network.call(self.node_id, lambda plane: plane.register(message), _ignore, _nothing)

    def _beat(self, boot: int) -> None:
        if boot != self._boots or not self.up:
            return
        self._seq += 1
        message = Heartbeat(
            facts=self._facts,
            boot_id=self.boot_id,
            seq=self._seq,
            heartbeat_interval_s=self._interval_s,
            workers=tuple([worker.status() for worker in self._workers]),
            services=self._services,
        )
        self._around.network.call(
            self.node_id, lambda plane: plane.heartbeat(message), lambda reply: self._beaten(boot, reply), _nothing
        )
        self._around.timeline.after(round(self._interval_s * 1000), lambda: self._beat(boot))

    def _beaten(self, boot: int, reply: HeartbeatReply) -> None:
        if boot != self._boots or not self.up:
            return
        self._superseded |= reply.superseded
        for worker in self._workers:
            worker.draining = reply.draining
        if not reply.known:
            self._register()


def _nothing() -> None:
    """Let it be: the next heartbeat makes good."""


def _ignore(_: object) -> None:
    """Take no notice of an answer."""
