"""The queen's stream: what she says of herself, what she passes on, and clients of every kind."""

import asyncio
import socket
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from msgspec.structs import replace

from muster.domain.gpu import Gpu, GpuOwner
from muster.domain.model import Model
from muster.domain.service import Service, ServiceStatus
from muster.events.telemetry import Telemetry, TelemetryLimits
from muster.ids import NodeId
from muster.system import SystemClock
from tests.conformance.telemetry.conftest import Queen, queen_running, worker_of
from tests.unit.agent.virtual_time import LoopClock, in_virtual_time, time_passes
from tests.waiting import eventually


def test_the_queen_speaks_every_two_and_a_half_seconds() -> None:
    assert TelemetryLimits().queen_every_s == 2.5


@in_virtual_time
async def test_stream_frequency() -> None:
    """About four of the queen in ten seconds, the first one at once."""

    class Nobody:
        def queen(self) -> dict[str, str]:
            return {"type": "queen"}

        def hive(self, node_id: NodeId) -> None:
            return None

        def hives(self) -> list[object]:
            return []

        def gap_s(self, node_id: NodeId) -> float:
            return 0.0

    telemetry = Telemetry(Nobody(), LoopClock(), TelemetryLimits())
    await telemetry.start()
    heard_s: list[float] = []

    async def listen() -> None:
        async for frames in telemetry.stream():
            heard_s.extend([LoopClock().monotonic_s()] * frames.count(b"queen"))

    began_s = LoopClock().monotonic_s()
    listening = asyncio.create_task(listen())
    await time_passes(10.1)
    await telemetry.stop()
    await listening
    assert [round(at_s - began_s, 1) for at_s in heard_s] == [0.0, 2.5, 5.0, 7.5, 10.0]


async def test_stream_with_no_hives(queen: Queen) -> None:
    async with queen.listening() as stream:
        event = await stream.next("queen", timeout_s=2.5)
    counts = {name: value for name, value in event.items() if name.startswith(("workers_", "hives_"))}
    assert counts == {"workers_online": 0, "workers_available": 0, "hives_online": 0, "hives_available": 0}
    assert (event["worker_ids"], event["hive_ids"]) == ([], [])


async def test_stream_sends_queen_heartbeat(queen: Queen) -> None:
    """Workers are counted as workers, not as hives."""
    await queen.hear("hive-1", worker_of(1), worker_of(2, instance="8081", util=50.0))
    await queen.hear("hive-2", worker_of(3), health_status="unhealthy")
    async with queen.listening() as stream:
        event = await stream.next("queen")
        again = await stream.next("queen", timeout_s=2.5)
    assert (event["workers_online"], event["workers_available"]) == (3, 1)
    assert (event["hives_online"], event["hives_available"]) == (2, 1)
    assert event["worker_ids"] == ["hive-1-worker-0", "hive-1-worker-1", "hive-2-worker-0"]
    assert event["hive_ids"] == ["hive-1", "hive-2"]
    assert again["workers_online"] == 3


async def test_stream_forwards_hive_telemetry(queen: Queen) -> None:
    async with queen.listening() as stream:
        await stream.next("queen")
        told = worker_of(12, util=85.0, vram_mb=8192, model="llama-3.2-1b")
        await queen.hear("hive-1", told, operational_status="busy")
        event = await stream.next("hive_telemetry", hive_id="hive-1")
    assert event["workers"] == [told | {"gpu_known": True}]
    assert event["timestamp"].endswith("Z")
    assert (event["operational_status"], event["health_status"]) == ("busy", "healthy")


async def test_every_heartbeat_of_a_hive_is_told(queen: Queen) -> None:
    async with queen.listening() as stream:
        for pid in (1, 2, 3):
            await queen.hear("hive-1", worker_of(pid))
            event = await stream.next("hive_telemetry")
            assert [worker["pid"] for worker in event["workers"]] == [pid]


async def test_an_agents_node_is_told_at_most_once_a_second_as_it_is_by_then(queen: Queen) -> None:
    service = Service(name="llama-gpu0", connector="llamacpp", status=ServiceStatus.RUNNING, pid=7, gpu_index=0)
    async with queen.listening() as stream:
        await queen.plane.heartbeat("n1", seq=1, services=(service,))
        first = await stream.next("hive_telemetry")
        loop, began_s = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        for seq in (2, 3, 4):
            owner = GpuOwner(name="llama-gpu0", memory_mb=seq, utilization_percent=5.0, service=True)
            gpu = Gpu(index=0, memory_total_mb=24_564, owners=(owner,))
            model = Model(name="m", resident=True)
            with_model = replace(service, models=(model,))
            await queen.plane.heartbeat("n1", seq=seq, services=(with_model,), gpus=(gpu,))
        second = await stream.next("hive_telemetry")
        assert loop.time() - began_s > 0.8
    (worker,) = first["workers"]
    assert (worker["gpu_util_pct"], worker["vram_mb"], worker["gpu_known"]) == (0.0, 0, False)
    (worker,) = second["workers"]
    assert (worker["pid"], worker["group"], worker["instance"]) == (7, "llamacpp", "llama-gpu0")
    assert (worker["gpu_util_pct"], worker["vram_mb"], worker["total_vram_mb"]) == (5.0, 4, 24_564)
    assert (worker["gpu_known"], worker["model"]) == (True, "m")


async def test_a_node_that_is_not_heard_any_more_has_no_workers(queen: Queen) -> None:
    await queen.hear("hive-1", worker_of(1))
    async with queen.listening() as stream:
        assert len((await stream.next("hive_telemetry"))["workers"]) == 1
        queen.plane.clock.advance(95)
        queen.plane.fleet.tick()
        assert (await stream.next("hive_telemetry"))["workers"] == []
        assert (await stream.next("queen", workers_online=0))["hives_online"] == 0


async def test_stream_handles_multiple_clients(queen: Queen) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(queen.listening()) for _ in range(3)]
        for client in clients:
            await client.next("queen")
        await queen.hear("hive-1", worker_of(5))
        events = await asyncio.gather(*(client.next("hive_telemetry") for client in clients))
    assert [event["workers"][0]["pid"] for event in events] == [5, 5, 5]


async def test_stream_handles_client_disconnect(queen: Queen) -> None:
    async with queen.listening() as left, queen.listening() as stays:
        await left.next("queen")
        left.response.close()
        await queen.hear("hive-1", worker_of(1))
        assert (await stays.next("hive_telemetry"))["hive_id"] == "hive-1"
        await eventually(lambda: queen.plane.telemetry.readers == 1)


async def test_stream_reconnection(queen: Queen) -> None:
    """Who comes back has everything as it is, whatever it missed."""
    async with queen.listening() as stream:
        await stream.next("queen")
    await queen.hear("hive-1", worker_of(1))
    async with queen.listening() as stream:
        assert (await stream.next())["type"] == "queen"
        event = await stream.next()
        assert (event["hive_id"], event["workers"][0]["pid"]) == ("hive-1", 1)


async def test_broadcast_channel_full() -> None:
    """One client never reads: its line is bounded, and the others hear everything."""
    async with queen_running() as queen:
        bounded = _bounded(queen)
        await bounded.start()
        deaf = bounded.stream()
        await anext(deaf)
        async with asyncio.timeout(20):
            hears = bounded.stream()
            await anext(hears)
            for pid in range(1, 200):
                await queen.hear("hive-1", *(worker_of(pid, instance=str(number)) for number in range(20)))
                assert f'"pid":{pid},'.encode() in await anext(hears)
            everything = await anext(deaf)
        assert everything.count(b"hive_telemetry") == 1, "it gets all anew, as it is now"
        assert b'"pid":199,' in everything
        await bounded.stop()


async def test_a_client_that_never_reads_holds_up_nobody(queen: Queen) -> None:
    parts = urlsplit(queen.url)
    with socket.create_connection((parts.hostname, parts.port)) as silent:
        silent.sendall(b"GET /v1/heartbeats/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: queen.plane.telemetry.readers == 1)
        async with queen.listening() as stream:
            for pid in range(1, 20):
                await queen.hear("hive-1", worker_of(pid))
                assert (await stream.next("hive_telemetry"))["workers"][0]["pid"] == pid


def _bounded(queen: Queen) -> Telemetry:
    limits = TelemetryLimits(join_s=0.001, queen_every_s=60, reader_bytes_max=65_536)
    telemetry = Telemetry(queen.plane.telemetry_scenery, SystemClock(), limits)
    queen.plane.fleet.on_change(telemetry.nodes_changed)
    return telemetry
