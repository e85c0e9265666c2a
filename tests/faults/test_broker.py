"""Nodes over a real RabbitMQ that is stopped, stands still, or is spoken to by strangers."""

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiormq
import pytest

from muster.links.amqp import topology
from tests.faults.conftest import FAST
from tests.muster_process import ControlPlane, MusterProcess
from tests.rabbitmq import PASSWORD, RabbitMq
from tests.waiting import eventually_sync

# A node that is silent because its broker is away stays a node that commands may be left for.
OVER_BROKER = FAST | {"MUSTER_GRPC_LISTEN": "none", "MUSTER_DEAD_AFTER_S": "100"}
VHOSTS = tuple(f"fleet-{number}" for number in range(8))

StartAgent = Callable[..., MusterProcess]

pytestmark = pytest.mark.timeout(240)  # the documented waits for a broker are long ones


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    """Start one for the tests that leave it in peace; each has a vhost of its own."""
    broker = RabbitMq(tmp_path_factory.mktemp("broker"), vhosts=VHOSTS)
    try:
        yield broker.start()
    finally:
        broker.remove()


@pytest.fixture(scope="module")
def vhosts() -> Iterator[str]:
    return iter(VHOSTS)


@pytest.fixture
def url(shared_broker: RabbitMq, vhosts: Iterator[str]) -> str:
    return f"{shared_broker.url}/{next(vhosts)}"


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[RabbitMq]:
    broker = RabbitMq(tmp_path / "broker")
    yield broker
    broker.remove()


@pytest.fixture
def start_plane(tmp_path: Path) -> Iterator[Callable[[str], ControlPlane]]:
    planes: list[ControlPlane] = []

    def start(url: str) -> ControlPlane:
        planes.append(ControlPlane(tmp_path / "plane", env=OVER_BROKER | {"MUSTER_RABBITMQ_URL": url}))
        return planes[-1].start()

    yield start
    for plane in planes:
        plane.kill()


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[StartAgent]:
    agents: list[MusterProcess] = []

    def start(node_id: str, plane: ControlPlane, url: str) -> MusterProcess:
        env = OVER_BROKER | {
            "MUSTER_CONTROL_PLANE": plane.url,
            "MUSTER_LINK": "amqp" if url else "http",
            "RABBITMQ_URL": url,
            "MUSTER_NODE_ID": node_id,
            "MUSTER_DATA_DIR": str(tmp_path / node_id / "data"),
        }
        agents.append(MusterProcess(tmp_path / node_id, "agent", env=env))
        return agents[-1].start()

    yield start
    for agent in agents:
        agent.kill()


def health(plane: ControlPlane) -> list[tuple[str, str]]:
    return [(node["node_id"], node["health_status"]) for node in plane.get("/api/v1/nodes")]


def came_by(plane: ControlPlane) -> list[tuple[str, str, str]]:
    return [(node["node_id"], node["link"], node["health_status"]) for node in plane.get("/api/v1/nodes")]


def wait_until_came_by(plane: ControlPlane, node_id: str, link: str) -> None:
    eventually_sync(lambda: came_by(plane) == [(node_id, link, "healthy")], 30)


def wait_until_done(plane: ControlPlane, command_id: str) -> None:
    eventually_sync(lambda: state(plane, command_id) == "done", 30)


def healthy(*node_ids: str) -> list[tuple[str, str]]:
    return [(node_id, "healthy") for node_id in node_ids]


def logged(process: MusterProcess, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in process.log.splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


def first_logged(process: MusterProcess, event: str) -> dict[str, Any]:
    return eventually_sync(lambda: logged(process, event), 30)[0]


def attempts(process: MusterProcess) -> list[int]:
    return [line["attempt"] for line in logged(process, "broker_away")]


def issue(plane: ControlPlane, node_id: str) -> str:
    return str(plane.post("/api/v1/command", {"node_id": node_id, "command": "status", "timeout": 150})["command_id"])


def state(plane: ControlPlane, command_id: str) -> str:
    return str(plane.get(f"/api/v1/commands/{command_id}")["state"])


def publish(url: str, exchange: str, key: str, body: bytes) -> None:
    async def once() -> None:
        async with aiormq.connect(url) as connection:
            channel = await connection.channel()
            await channel.basic_publish(body, exchange=exchange, routing_key=key, mandatory=True)

    asyncio.run(once())


def test_after_an_outage_of_the_broker_all_nodes_are_healthy_and_no_command_is_lost(
    own_broker: RabbitMq, start_plane: Callable[[str], ControlPlane], start_agent: StartAgent
) -> None:
    own_broker.start()
    plane = start_plane(own_broker.url)
    agents = [start_agent(node_id, plane, own_broker.url) for node_id in ("node-a", "node-b")]
    eventually_sync(lambda: health(plane) == healthy("node-a", "node-b"), 30)

    own_broker.stop()
    command_id = issue(plane, "node-a")
    processes = [plane, *agents]
    eventually_sync(lambda: all(len(attempts(process)) >= 2 for process in processes), 60)
    assert state(plane, command_id) in {"created", "sent"}
    own_broker.start()

    eventually_sync(lambda: health(plane) == healthy("node-a", "node-b"), 60)
    wait_until_done(plane, command_id)
    for process in processes:  # each retry is told, once
        assert attempts(process) == list(range(1, len(attempts(process)) + 1))
        assert PASSWORD not in process.log
    assert all(agent.running for agent in agents)


def test_a_broker_that_stands_still_is_noticed_and_one_that_goes_on_is_used_again(
    own_broker: RabbitMq, start_plane: Callable[[str], ControlPlane], start_agent: StartAgent
) -> None:
    own_broker.start()
    plane = start_plane(own_broker.url)
    agent = start_agent("node-a", plane, own_broker.url)
    eventually_sync(lambda: health(plane) == healthy("node-a"), 30)

    own_broker.freeze()
    eventually_sync(lambda: attempts(agent) and attempts(plane), 90)
    own_broker.thaw()

    eventually_sync(lambda: health(plane) == healthy("node-a"), 60)
    wait_until_done(plane, issue(plane, "node-a"))


def test_a_control_plane_serves_while_its_broker_is_away_and_finds_it_later(
    own_broker: RabbitMq, start_plane: Callable[[str], ControlPlane], start_agent: StartAgent
) -> None:
    plane = start_plane(own_broker.url)
    start_agent("node-a", plane, own_broker.url)
    over_http = start_agent("node-b", plane, "")
    eventually_sync(lambda: health(plane) == healthy("node-b"), 30)
    assert over_http.running

    own_broker.start()

    eventually_sync(lambda: health(plane) == healthy("node-a", "node-b"), 60)


def test_a_control_plane_that_was_killed_finds_its_nodes_again(
    url: str, start_plane: Callable[[str], ControlPlane], start_agent: StartAgent
) -> None:
    plane = start_plane(url)
    agents = [start_agent(node_id, plane, url) for node_id in ("node-a", "node-b")]
    eventually_sync(lambda: health(plane) == healthy("node-a", "node-b"), 30)

    plane.kill()
    plane.start()

    eventually_sync(lambda: health(plane) == healthy("node-a", "node-b"), 30)
    wait_until_done(plane, issue(plane, "node-b"))
    assert all(agent.running for agent in agents)


def test_an_agent_that_was_killed_comes_back_as_the_same_node(
    url: str, start_plane: Callable[[str], ControlPlane], start_agent: StartAgent
) -> None:
    plane = start_plane(url)
    agent = start_agent("node-a", plane, url)
    eventually_sync(lambda: health(plane) == healthy("node-a"), 30)
    agent.kill()
    eventually_sync(lambda: health(plane) == [("node-a", "stale")], 30)

    agent.start()

    eventually_sync(lambda: health(plane) == healthy("node-a"), 30)
    wait_until_done(plane, issue(plane, "node-a"))


def test_a_node_that_changes_its_link_stays_one_record(
    url: str, start_plane: Callable[[str], ControlPlane], start_agent: StartAgent
) -> None:
    plane = start_plane(url)
    for link, over in (("http", ""), ("amqp", url), ("http", "")):
        agent = start_agent("node-a", plane, over)
        wait_until_came_by(plane, "node-a", link)
        wait_until_done(plane, issue(plane, "node-a"))
        agent.kill()


def test_a_message_that_makes_no_sense_is_counted_and_harms_nobody(
    url: str, start_plane: Callable[[str], ControlPlane], start_agent: StartAgent
) -> None:
    plane = start_plane(url)
    start_agent("node-a", plane, url)
    eventually_sync(lambda: health(plane) == healthy("node-a"), 30)

    publish(url, topology.HEARTBEAT, "", b'{"node_id": "unknown"}')
    publish(url, topology.REGISTRATION, topology.REGISTER_KEY, b"\xff not JSON")

    def counted(queue: str) -> bool:
        with urllib.request.urlopen(f"{plane.url}/metrics", timeout=10) as answer:
            return f'muster_broker_dead_letters_total{{queue="{queue}"}} 1' in answer.read().decode()

    eventually_sync(lambda: counted(topology.HEARTBEAT_QUEUE) and counted(topology.REGISTRATION_QUEUE), 30)
    before_ms = plane.get("/api/v1/nodes")[0]["last_seen_ms"]
    eventually_sync(lambda: plane.get("/api/v1/nodes")[0]["last_seen_ms"] > before_ms, 30)
    assert health(plane) == healthy("node-a")


def test_an_agent_says_what_is_wrong_with_its_broker(
    url: str, shared_broker: RabbitMq, start_plane: Callable[[str], ControlPlane], start_agent: StartAgent
) -> None:
    plane = start_plane(url)
    wrong_password = start_agent("node-a", plane, url.replace(PASSWORD, "not-the-secret"))
    no_vhost = start_agent("node-b", plane, f"{shared_broker.url}/nowhere")
    nobody = start_agent("node-c", plane, "amqp://127.0.0.1:1")
    for agent, problem, next_step in (
        (wrong_password, "refuses the login of 'muster'", "RABBITMQ_URL"),
        (no_vhost, "has no vhost 'nowhere'", "rabbitmqctl add_vhost nowhere"),
        (nobody, "cannot be reached", "RABBITMQ_URL"),
    ):
        line = first_logged(agent, "broker_away")
        assert problem in line["error"]
        assert next_step in line["next_step"]
        assert "not-the-secret" not in agent.log
        assert PASSWORD not in agent.log
        assert agent.running
