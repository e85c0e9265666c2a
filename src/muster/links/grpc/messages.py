"""The typed messages of single calls, made from and into those that every link has."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from muster.domain.model import canonical_model_name
from muster.domain.node import Health, Node
from muster.links.grpc.agent_control_pb2 import FleetStatusReply, HeartbeatRequest, NodeStatus, RegisterRequest
from muster.wire import Heartbeat, Registration
from muster.wire.codec import invalid

T = TypeVar("T")

_INTERVAL_S = 30.0
_ONLY_BOOT = "only-boot"


def registration_of(request: RegisterRequest) -> Registration:
    return _made(_node(_said(request)), Registration)


def heartbeat_of(request: HeartbeatRequest, now_ms: int) -> Heartbeat:
    said = _said(request)
    resources = said.pop("resources", {})
    said["gpus"] = resources.pop("gpus", [])
    said["workers"] = [{"status": "idle"} | worker for worker in said["workers"]]
    said["services"] = [{"status": "running"} | service for service in said["services"]]
    node = _node(said.pop("node", {}))
    return _made(node | {"seq": now_ms, "resources": resources} | said, Heartbeat)


def fleet_status(nodes: Sequence[Node], node_type: str) -> FleetStatusReply:
    shown = [node for node in nodes if not node_type or node.facts.node_type == node_type]
    healthy = sum(node.health is Health.HEALTHY for node in shown)
    return FleetStatusReply(
        total_nodes=len(shown),
        healthy_nodes=healthy,
        unhealthy_nodes=len(shown) - healthy,
        gpu_nodes=sum(bool(node.gpus) for node in shown),
        total_gpus=sum(len(node.gpus) for node in shown),
        nodes=[_node_status(node) for node in shown],
    )


def _node_status(node: Node) -> NodeStatus:
    names = {canonical_model_name(model.name) for service in node.services for model in service.models}
    return NodeStatus(
        node_id=node.node_id,
        node_type=node.facts.node_type,
        health_status=node.health.value,
        phase=node.phase.value,
        connected=node.connected,
        draining=node.draining,
        link=node.link,
        last_seen_ms=node.last_seen_ms,
        nebula_ip=node.facts.nebula_ip,
        region=node.facts.region,
        reason=node.reason,
        gpu_count=len(node.gpus),
        models=sorted(names),
    )


def _node(said: dict[str, Any]) -> dict[str, Any]:
    """Part what a node is from what its agent does."""
    agent = {name: said.pop(name) for name in ("boot_id", "heartbeat_interval_s", "phase") if name in said}
    return {"boot_id": _ONLY_BOOT, "heartbeat_interval_s": _INTERVAL_S, "phase": "ready"} | agent | {"facts": said}


def _said(message: Message) -> dict[str, Any]:
    """Return what was said; an empty text is none."""
    said: dict[str, Any] = _without_empty(
        MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    )
    return said


def _without_empty(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_empty(part) for key, part in value.items() if part != ""}
        case list():
            return [_without_empty(part) for part in value]
    return value


def _made(fields: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(fields, kind, strict=False)  # whole numbers of 64 bits come as text
    except msgspec.ValidationError as error:
        raise invalid(error) from None
