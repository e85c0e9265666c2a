"""A rented machine beside its node: what people see of it, and how its work is let end."""

import time
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from muster.cli.client import Client
from muster.control.machines.budget import cost_usd
from muster.domain.machine import PAID, Machine
from muster.domain.model import canonical_model_name

PROVIDER_PAUSE_S = 2.0
_TAKES_WORK = frozenset({"healthy", "degraded"})
_BUSY = "busy"


class Rented(Struct, frozen=True, kw_only=True):
    """`node` is None when it has not registered, or (`node_known` is false) when nobody could be asked."""

    machine: Machine
    node: dict[str, Any] | None = None
    node_known: bool = False
    hourly_usd: float | None = None

    @property
    def in_words(self) -> str:
        if self.node is None:
            return "its node has not registered" if self.node_known else "its node is not known"
        if missing := missing_models(self):
            return f"its node is {self.node['health_status']}, not served yet: {', '.join(missing)}"
        return f"its node is {self.node['health_status']}"


def nodes_by_machine(client: Client) -> dict[str, dict[str, Any]]:
    nodes = client.get("/api/v1/nodes")
    by_id = {str(node["node_id"]): node for node in nodes}
    return {str(node["instance_id"]): node for node in nodes if node.get("instance_id")} | by_id


def describe(one: Rented) -> dict[str, Any]:
    machine, node = one.machine, one.node or {}
    now_ms = time.time_ns() // 1_000_000
    runs = machine.state in PAID
    return {
        "machine_id": machine.machine_id,
        "name": machine.name,
        "fleet": machine.fleet,
        "state": machine.state.value,
        "machine_type": machine.machine_type,
        "spot": machine.spot,
        "models": list(machine.models),
        "owner": machine.owner,
        "idle_stop_s": machine.idle_stop_s,
        "zone": machine.zone,
        "private_ip": machine.private_ip,
        "public_ip": machine.public_ip,
        "age_s": (now_ms - machine.started_at_ms) / 1000 if runs else None,
        "hourly_usd": one.hourly_usd,
        "cost_usd": cost_usd(one.hourly_usd, machine, now_ms),
        "node_id": node.get("node_id"),
        "health_status": node.get("health_status"),
        "reason": machine.interrupted or machine.reason or node.get("reason"),
    }


def is_serving(one: Rented) -> bool:
    node = one.node
    return (
        node is not None
        and bool(node.get("connected"))
        and node.get("health_status") in _TAKES_WORK
        and not missing_models(one)
    )


def missing_models(one: Rented) -> list[str]:
    """Return the models that the machine is to serve and its node does not offer yet."""
    services = (one.node or {}).get("services") or []
    offered = {
        canonical_model_name(_name(model))
        for service in services
        if service.get("status") == "running"
        for model in service.get("models") or []
    }
    return [model for model in one.machine.models if canonical_model_name(model) not in offered]


def drain(client: Client, node: Mapping[str, Any], drain_s: float) -> None:
    """Have the node take no new work, and wait until it does none; no longer than `drain_s`."""
    node_id = node["node_id"]
    client.post("/api/v1/command", {"node_id": node_id, "command": "drain"})
    until_s = time.monotonic() + drain_s
    while time.monotonic() < until_s and _works(client.get(f"/api/v1/nodes/{node_id}")):
        time.sleep(PROVIDER_PAUSE_S)


def _works(node: Mapping[str, Any]) -> bool:
    return any(worker.get("status") == _BUSY for worker in node.get("workers") or []) or any(
        service.get("slots_busy") for service in node.get("services") or []
    )


def _name(model: Any) -> str:
    return str(model["name"] if isinstance(model, dict) else model)
