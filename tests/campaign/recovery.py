"""When the fleet does its job again after a fault.

That is when, of the one that was hurt, new heartbeats are seen and a job that was submitted after the fault had ended
is completed: by the very agent that was hurt; submitted to, and seen completed at, the very control plane; for the
store through any control plane, each of which shows all nodes healthy again; for the broker, that every node that
reports over it is heard.
"""

import asyncio

from tests.campaign.customers import Customers
from tests.campaign.fleet import UNANSWERED, Fleet
from tests.campaign.orders import probe
from tests.campaign.pace import LOOK_S, pause
from tests.campaign.schedule import AGENT, BROKER, KINDS, PLANE, Fault

PATIENCE_S = 120.0


async def recovered(fleet: Fleet, customers: Customers, fault: Fault, name: str) -> bool:
    """Wait until it has; False when it has not after all patience."""
    group = KINDS[fault.kind][0]
    heard = _nodes_to_be_heard(fleet, fault)
    labels = {"agent": fault.target} if group == AGENT else {}
    at = fault.target if group == PLANE else None
    since_ms = await _now_ms(fleet)
    try:
        async with asyncio.timeout(PATIENCE_S):
            order = probe(name, labels)
            await customers.submit(order, at)
            while not await _completed(fleet, order.job_id, at):
                await pause(LOOK_S)
            while not await _all_heard(fleet, heard, since_ms, [at] if at else fleet.plane_names):
                await pause(LOOK_S)
    except TimeoutError:
        return False
    return True


def _nodes_to_be_heard(fleet: Fleet, fault: Fault) -> list[str]:
    group = KINDS[fault.kind][0]
    if group == AGENT:
        return [fault.target]
    return [name for name in fleet.agent_names if group != BROKER or name.startswith("amqp")]


async def _now_ms(fleet: Fleet) -> int:
    """Return the newest time at which any node was heard, by the clocks that later ones will be told by."""
    shown = await asyncio.gather(*(fleet.nodes(plane) for plane in fleet.plane_names))
    return max((node["last_seen_ms"] for nodes in shown for node in (nodes or {}).values()), default=0)


async def _completed(fleet: Fleet, job_id: str, plane: str | None) -> bool:
    for name in [plane] if plane else fleet.plane_names:
        try:
            status, body = await fleet.ask(name, "GET", f"/api/jobs/{job_id}")
        except UNANSWERED:
            continue
        if status == 200 and body["job"]["status"] == "completed":
            return True
    return False


async def _all_heard(fleet: Fleet, names: list[str], since_ms: int, planes: list[str]) -> bool:
    """Those that are hurt by another fault by now are not waited for, neither as nodes nor as who shows them."""
    for plane in planes:
        if plane in fleet.hurt:
            continue
        nodes = await fleet.nodes(plane)
        if nodes is None:
            return False
        for name in names:
            node = nodes.get(name)
            if name in fleet.hurt or _link_is_hurt(fleet, name):
                continue
            if node is None or node["health_status"] != "healthy" or node["last_seen_ms"] <= since_ms:
                return False
    return True


def _link_is_hurt(fleet: Fleet, node: str) -> bool:
    return "store" in fleet.hurt or ("broker" in fleet.hurt and node.startswith("amqp"))
