"""Messages and readings of effects for the tests of the registry."""

from collections.abc import Sequence
from typing import Any

from muster.domain.event import Event
from muster.domain.model import Model
from muster.domain.node import NodeFacts
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.ids import NodeId, WorkerId, worker_id
from muster.registry.book import Effect, Emit, NodeBook
from muster.registry.lateness import Limits
from muster.wire import Heartbeat, Registration

INTERVAL_S = 10.0
NODE = NodeId("gpu-1")


def book(**limits: Any) -> NodeBook:
    return NodeBook(Limits(**limits))


def facts(node_id: str = NODE, **more: Any) -> NodeFacts:
    return NodeFacts(node_id=NodeId(node_id), **more)


def registration(node_id: str = NODE, boot_id: str = "boot-a", **more: Any) -> Registration:
    return Registration(facts=facts(node_id), boot_id=boot_id, heartbeat_interval_s=INTERVAL_S, **more)


def heartbeat(seq: int, boot_id: str = "boot-a", node_id: str = NODE, **more: Any) -> Heartbeat:
    fields: dict[str, Any] = {"facts": facts(node_id), "heartbeat_interval_s": INTERVAL_S} | more
    return Heartbeat(boot_id=boot_id, seq=seq, **fields)


def worker(index: int, status: WorkerStatus = WorkerStatus.IDLE, name: str | None = None, **more: Any) -> Worker:
    return Worker(worker_id=WorkerId(name) if name else worker_id(NODE, index), index=index, status=status, **more)


def service(name: str, status: ServiceStatus = ServiceStatus.RUNNING, *models: str, **more: Any) -> Service:
    offered = tuple(Model(name=model) for model in models)
    return Service(name=name, connector="openai", status=status, models=offered, **more)


def events(effects: Sequence[Effect]) -> list[Event]:
    return [effect.event for effect in effects if isinstance(effect, Emit)]


def kinds(effects: Sequence[Effect]) -> list[str]:
    return [event.kind for event in events(effects)]
