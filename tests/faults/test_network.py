"""Real cuts of the network: agents and their control plane in network namespaces of their own."""

import http.client
import json
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import FAST
from tests.faults.test_kills import all_events, assert_each_completed_once, count, health, submit
from tests.muster_process import ControlPlane, MusterProcess
from tests.netns import Host, Network
from tests.waiting import eventually_sync

PORT = 8090
TOKEN = "only-within-the-test"
BACK_S = 90.0  # a call that hangs is given up after 10 s; then connections are tried at growing intervals


class PlaneInside(ControlPlane):
    """A control plane at the center, which is spoken with from there."""

    def __init__(self, folder: Path, network: Network, **env: str) -> None:
        super().__init__(folder, env=FAST | {"MUSTER_TOKEN": TOKEN, "MUSTER_GRPC_LISTEN": "none"} | env)
        self._host = network.center
        self.enter = network.center.enter
        self.env["MUSTER_LISTEN"] += f",{network.center.address}:{PORT}"

    def _call(self, request: urllib.request.Request) -> Any:
        return self._host.inside(partial(super()._call, request))


def agent_inside(folder: Path, host: Host, network: Network, node_id: str) -> MusterProcess:
    env = FAST | {
        "MUSTER_CONTROL_PLANE": f"http://{network.center.address}:{PORT}",
        "MUSTER_TOKEN": TOKEN,
        "MUSTER_NODE_ID": node_id,
        "MUSTER_DATA_DIR": str(folder / node_id / "data"),
    }
    agent = MusterProcess(folder / node_id, "agent", env=env)
    agent.enter = host.enter
    return agent


class World:
    """A network with a control plane, and one agent on each host."""

    def __init__(self, folder: Path, hosts: int, **env: str) -> None:
        self.network = Network(hosts)
        self.plane = PlaneInside(folder / "plane", self.network, **env)
        self.names = [f"node-{number}" for number in range(hosts)]
        self.agents = [
            agent_inside(folder, host, self.network, name)
            for host, name in zip(self.network.hosts, self.names, strict=True)
        ]

    def start(self) -> None:
        self.plane.start()
        for agent in self.agents:
            agent.start()
        eventually_sync(lambda: health(self.plane) == dict.fromkeys(self.names, "healthy"), 60)

    def stop(self) -> None:
        for process in (*self.agents, self.plane):
            process.kill()
        self.network.remove()

    def told(self, *kinds: str) -> list[tuple[str, str]]:
        return [(event["kind"], event["key"]) for event in all_events(self.plane) if event["kind"] in kinds]


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(hosts: int, **env: str) -> World:
        worlds.append(World(tmp_path, hosts, **env))
        return worlds[-1]

    yield make
    for world in worlds:
        world.stop()


def pull_the_cable(network: Network, *, heal: bool) -> None:
    network.link(0, "up" if heal else "down")


def lose_what_it_says(network: Network, *, heal: bool) -> None:
    network.drop("-D" if heal else "-A", "INPUT", "-s", network.hosts[0].address)


def lose_what_it_is_told(network: Network, *, heal: bool) -> None:
    network.drop("-D" if heal else "-A", "OUTPUT", "-d", network.hosts[0].address)


@pytest.mark.parametrize("cut", [pull_the_cable, lose_what_it_says, lose_what_it_is_told])
def test_an_agent_that_was_cut_off_goes_dead_and_comes_back_by_itself(make_world: Any, cut: Any) -> None:
    world = make_world(2)
    world.start()
    cut(world.network, heal=False)
    eventually_sync(lambda: health(world.plane) == {"node-0": "dead", "node-1": "healthy"}, 60)
    job_ids = submit(world.plane, 2, duration_ms=10)
    assert_each_completed_once(world.plane, job_ids)

    cut(world.network, heal=True)

    eventually_sync(lambda: health(world.plane) == {"node-0": "healthy", "node-1": "healthy"}, BACK_S)
    assert all(agent.running for agent in world.agents)
    expected = [("node_registered", "node-0"), ("node_registered", "node-1")]
    expected += [(kind, "node-0") for kind in ("node_stale", "node_dead", "node_recovered")]
    kinds = ("node_registered", "node_stale", "node_dead", "node_recovered", "node_rebooted")
    # Facts are written a moment after they are shown.
    eventually_sync(lambda: sorted(world.told(*kinds)) == sorted(expected), BACK_S)


def test_a_heartbeat_that_was_under_way_during_a_cut_does_not_count(make_world: Any) -> None:
    """It waits in the kernel of its host, and arrives after a newer one has."""
    world = make_world(1)
    world.plane.start()
    host: Host = world.network.hosts[0]

    def message(seq: int, status: str) -> dict[str, Any]:
        facts = {"node_id": "node-0"}
        return {"facts": facts, "boot_id": "boot-1", "seq": seq, "heartbeat_interval_s": 30.0, "status": status}

    connection = http.client.HTTPConnection(world.network.center.address, PORT, timeout=60)

    def send(seq: int, status: str) -> None:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        connection.request("POST", "/api/agent/heartbeat", json.dumps(message(seq, status)), headers)

    host.inside(lambda: send(1, "healthy"))
    assert connection.getresponse().read()
    pull_the_cable(world.network, heal=False)
    host.inside(lambda: send(2, "unhealthy"))
    world.plane.post("/api/agent/heartbeat", message(3, "degraded"))
    pull_the_cable(world.network, heal=True)

    assert connection.getresponse().status == http.client.OK  # it did arrive, and was answered
    assert health(world.plane) == {"node-0": "degraded"}
    connection.close()


def test_a_control_plane_that_is_cut_off_suspects_itself_and_nobody_else(make_world: Any) -> None:
    world = make_world(6, MUSTER_SELF_SUSPICION_S="120")
    world.start()
    plane = world.plane
    job_ids = submit(plane, 6, duration_ms=6000)
    eventually_sync(lambda: count(plane, "assigned", "in_progress") == 6, 30)

    world.network.bridge("down")

    eventually_sync(lambda: plane.get("/api/v1/stats")["suspects_itself"], 30)
    silent_since: int = max(node["last_seen_ms"] for node in plane.get("/api/v1/nodes"))

    def long_past_death() -> bool:
        """Tell by the control plane's own clock, which a node on its own host goes on to be stamped with."""
        plane.post("/api/agent/heartbeat", stranger())
        seen_ms: int = plane.get("/api/v1/nodes/stranger")["last_seen_ms"]
        return seen_ms > silent_since + 10_000

    eventually_sync(long_past_death, 60)
    world.network.bridge("up")

    eventually_sync(lambda: plane.get("/api/v1/stats")["suspects_itself"] is False, BACK_S)
    everybody = dict.fromkeys(["stranger", *world.names], "healthy")
    eventually_sync(lambda: plane.post("/api/agent/heartbeat", stranger()) and health(plane) == everybody, BACK_S)
    assert_each_completed_once(plane, job_ids)
    assert {plane.job(job_id)["attempt"] for job_id in job_ids} == {1}
    kinds = world.told("control_plane_suspects_itself", "control_plane_trusts_itself_again")
    assert [kind for kind, _ in kinds] == ["control_plane_suspects_itself", "control_plane_trusts_itself_again"]
    assert world.told("node_stale", "node_dead", "lease_expired") == []


_counted = iter(range(1_000_000))


def stranger() -> dict[str, Any]:
    """Return the next heartbeat of a node on the control plane's own host."""
    facts = {"node_id": "stranger"}
    return {"facts": facts, "boot_id": "boot-1", "seq": next(_counted), "heartbeat_interval_s": 30.0}
