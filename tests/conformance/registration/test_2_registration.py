"""Phase 2: what builds and starts a worker, and how it appears."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from tests.conformance.registration.conftest import NEBULA_IP, NODE, Fleet
from tests.deploy.programs import DEPLOY, fetched, output_of
from tests.waiting import eventually


def test_2_1_the_agents_help_speaks_of_rabbitmq() -> None:
    program = Path(sys.executable).with_name("worker-agent")
    shown = subprocess.run([program, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "rabbitmq" in shown.lower()


def test_2_2_the_image_of_a_gpu_worker_is_valid() -> None:
    output_of(fetched("packer"), "validate", "-only=gpu-worker.*", DEPLOY / "packer")


@asynccontextmanager
async def published(fleet: Fleet, exchange: str, key: str) -> AsyncIterator[list[dict[str, Any]]]:
    """Listen on an exchange from before a worker boots."""
    messages: list[dict[str, Any]] = []

    async def note(message: AbstractIncomingMessage) -> None:
        messages.append(json.loads(message.body))

    connection = await aio_pika.connect(fleet.broker_url)
    async with connection, connection.channel() as channel:
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, key)
        await queue.consume(note, no_ack=True)
        fleet.worker()
        yield messages


async def test_2_4_a_worker_that_boots_registers_itself(own_fleet: Fleet) -> None:
    async with published(own_fleet, "agents.registration", "register") as messages:
        await eventually(lambda: messages, 60)
    message = messages[0]
    assert message["action"] == "register"
    assert message["node_id"] == NODE
    assert message["node_type"] == "gpu-worker"
    assert message["nebula_ip"] == NEBULA_IP
    assert {"public_ip", "region", "az", "capabilities", "timestamp"} <= message.keys()
    own_fleet.wait_until_healthy()


async def test_2_4_heartbeats_are_published_again_and_again(own_fleet: Fleet) -> None:
    async with published(own_fleet, "agents.heartbeat", "") as messages:
        await eventually(lambda: len(messages) >= 5, 60)
    assert {message["node_id"] for message in messages} == {NODE}
    assert {"status", "services", "resources", "workers", "timestamp"} <= messages[-1].keys()
    resources = messages[-1]["resources"]
    assert {"memory_total_mb", "memory_used_mb", "cpu_percent", "gpus", "models_loaded"} <= resources.keys()


def test_2_4_a_type_in_the_query_selects(fleet: Fleet) -> None:
    assert [node["id"] for node in fleet.plane.get("/api/v1/nodes?type=gpu-worker")] == [NODE]
    assert fleet.plane.get("/api/v1/nodes?type=lighthouse") == []


def test_2_4_the_node_says_who_and_how_it_is(fleet: Fleet) -> None:
    node = fleet.node()
    assert (node["id"], node["nebula_ip"]) == (NODE, NEBULA_IP)
    assert node["connected"] is True
    assert node["health_status"] == "healthy"
    assert node["link"] == "amqp"


def test_2_4_the_page_and_the_view_behind_it_show_the_fleet(fleet: Fleet) -> None:
    with urllib.request.urlopen(f"{fleet.plane.url}/_/ui", timeout=10) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/html")
    assert NODE in [node["id"] for node in fleet.plane.get("/_/fleet")["nodes"]]
