"""The facts that lie between two records of a node, as events. Figures that merely move are no facts."""

from collections.abc import Iterable, Mapping
from typing import Any

from muster.domain.event import Emit, Event
from muster.domain.model import canonical_model_name
from muster.domain.node import Health, Node
from muster.domain.service import Service
from muster.registry.health import LOST

_SILENT = {Health.STALE: "node_stale", Health.DEAD: "node_dead"}


def changes(before: Node, after: Node, now_ms: int) -> list[Emit]:
    """Compare cheap fields first and by identity: nearly every heartbeat changes none of them."""
    found: list[Emit] = []
    if after.boot_id != before.boot_id:
        found.append(_step(after, "node_rebooted", before.boot_id, after.boot_id, now_ms))
    if after.health is not before.health:
        found.append(_health(before, after, now_ms))
    if after.phase is not before.phase and after.health is not Health.DEAD:  # death says it already
        found.append(_step(after, "node_phase_changed", before.phase, after.phase, now_ms))
    if after.draining is not before.draining:
        found.append(_step(after, "node_draining_changed", before.draining, after.draining, now_ms))
    for name in set(after.drained_services) ^ set(before.drained_services):
        draining = name in after.drained_services
        found.append(node_event(after, "service_draining_changed", now_ms, service=name, draining=draining))
    if after.link != before.link or (after.connected is not before.connected and not _tells_connection(before, after)):
        found.append(node_event(after, "node_link_changed", now_ms, link=after.link, connected=after.connected))
    if after.workers != before.workers:
        found += _workers(before, after, now_ms)
        found += _connectors(before, after, now_ms)
    if after.services != before.services:
        found += _services(before, after, now_ms)
        found += _models(before, after, now_ms)
    return found


def node_event(node: Node, kind: str, now_ms: int, **data: Any) -> Emit:
    return Emit(Event(kind=kind, key=node.node_id, at_ms=now_ms, data={"node_id": node.node_id} | data))


def _step(node: Node, kind: str, before: object, after: object, now_ms: int) -> Emit:
    data = {"from": before, "to": after} | ({"reason": node.reason} if node.reason else {})
    return node_event(node, kind, now_ms, **data)


def _health(before: Node, after: Node, now_ms: int) -> Emit:
    recovered = "node_recovered" if before.health in LOST else "node_health_changed"
    return _step(after, _SILENT.get(after.health, recovered), before.health, after.health, now_ms)


def _tells_connection(before: Node, after: Node) -> bool:
    """Whether node_dead or node_recovered says that the connection changed."""
    return before.health is not after.health and Health.DEAD in (before.health, after.health)


def _workers(before: Node, after: Node, now_ms: int) -> Iterable[Emit]:
    old = {worker.worker_id: worker for worker in before.workers}
    new = {worker.worker_id: worker for worker in after.workers}
    for worker_id in _either(old, new):
        was, now = old.get(worker_id), new.get(worker_id)
        if (was and (was.status, was.current_jobs)) != (now and (now.status, now.current_jobs)):
            yield node_event(
                after,
                "worker_status_changed",
                now_ms,
                worker_id=worker_id,
                current_jobs=now.current_jobs if now else (),
                **{"from": was and was.status, "to": now and now.status},
            )


def _connectors(before: Node, after: Node, now_ms: int) -> Iterable[Emit]:
    """Tell in one event which workers' connectors are in another state than before."""
    old = {worker.worker_id: worker.connector_statuses for worker in before.workers}
    changed = {
        worker.worker_id: worker.connector_statuses
        for worker in after.workers
        if worker.connector_statuses != old.get(worker.worker_id, {})
    }
    if changed:
        yield node_event(after, "connector_status_changed", now_ms, workers=changed)


def _services(before: Node, after: Node, now_ms: int) -> Iterable[Emit]:
    old = {service.name: service for service in before.services}
    new = {service.name: service for service in after.services}
    for name in _either(old, new):
        was, now = old.get(name), new.get(name)
        if (was and was.status) is not (now and now.status):
            why = {"reason": now.error} if now and now.error else {}
            steps = {"from": was and was.status, "to": now and now.status}
            yield node_event(after, "service_status_changed", now_ms, service=name, **steps, **why)


def _models(before: Node, after: Node, now_ms: int) -> Iterable[Emit]:
    old, new = _model_names(before.services), _model_names(after.services)
    if old != new:
        yield node_event(after, "models_changed", now_ms, added=sorted(new - old), removed=sorted(old - new))


def _model_names(services: Iterable[Service]) -> set[str]:
    return {canonical_model_name(model.name) for service in services for model in service.models}


def _either(old: Mapping[Any, object], new: Mapping[Any, object]) -> list[Any]:
    return [*new, *(key for key in old if key not in new)]
