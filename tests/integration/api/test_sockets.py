"""The monitor's events over a WebSocket: the same as over server-sent events, for those who may see them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from muster.access.roles import Role
from muster.access.tokens import Wanted
from muster.api.sockets import messages_in
from tests.integration.api.conftest import Served, serving
from tests.waiting import eventually


@asynccontextmanager
async def watching(served: Served, query: str = "", **options: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with served.client.ws_connect(f"/ws/monitor/m1{query}", **options) as ws:
        yield ws


async def event(ws: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    """Return the next event of this kind."""
    async with asyncio.timeout(10):
        while True:
            found: dict[str, Any] = json.loads(await ws.receive_str())
            if found["type"] == kind:
                return found


async def closed_with(ws: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    async with asyncio.timeout(10):
        message = await ws.receive()
    assert message.type is aiohttp.WSMsgType.CLOSE
    return ws.close_code, message.extra or ""


async def test_a_monitor_is_connected_then_sees_all_and_then_what_changes(served: Served) -> None:
    await served.plane.heartbeat("n1")
    async with watching(served) as ws:
        first = json.loads(await ws.receive_str())
        assert first["type"] == "connected"
        snapshot = await event(ws, "full_state_snapshot")
        assert [machine["machine_id"] for machine in snapshot["data"]["machines"]] == ["n1"]
        await served.plane.heartbeat("n2")
        assert (await event(ws, "machine_update"))["machine"]["machine_id"] == "n2"


async def test_both_ways_say_the_same(served: Served) -> None:
    await served.plane.heartbeat("n1")
    async with watching(served) as ws, served.client.get("/api/events/monitor") as stream:
        over_socket = await event(ws, "full_state_snapshot")
        async for line in stream.content:
            if line.startswith(b"data: ") and b"full_state_snapshot" in line:
                streamed = json.loads(line.removeprefix(b"data: "))
                break
    over_socket.pop("event_id")
    assert over_socket == streamed


async def test_a_monitor_comes_back_with_the_id_that_it_saw_last(served: Served) -> None:
    await served.plane.heartbeat("n1")
    async with watching(served) as ws:
        seen = (await event(ws, "full_state_snapshot"))["event_id"]
    async with watching(served, f"?after={seen}") as ws:
        assert (await event(ws, "connected"))["type"] == "connected"
        await served.plane.submit("j1")
        kinds = {json.loads(await ws.receive_str())["type"] for _ in range(2)}
    assert "full_state_snapshot" not in kinds


async def test_only_the_machines_asked_for_are_told(served: Served) -> None:
    await served.plane.heartbeat("n1")
    await served.plane.heartbeat("n2")
    async with watching(served, "?machines=n2") as ws:
        snapshot = await event(ws, "full_state_snapshot")
        assert [machine["machine_id"] for machine in snapshot["data"]["machines"]] == ["n2"]


async def test_what_a_monitor_says_is_not_listened_to(served: Served) -> None:
    async with watching(served) as ws:
        await event(ws, "full_state_snapshot")
        await ws.send_str("hello")
        await ws.send_bytes(b"\x00")
        await served.plane.heartbeat("n1")
        assert (await event(ws, "machine_update"))["machine"]["machine_id"] == "n1"


async def test_whoever_left_is_forgotten(served: Served) -> None:
    async with watching(served) as ws:
        await event(ws, "full_state_snapshot")
        assert served.plane.hub.readers == 1
    await eventually(lambda: served.plane.hub.readers == 0)


async def test_a_slow_monitor_is_given_a_snapshot_instead_of_what_it_missed(served: Served) -> None:
    async with watching(served) as ws:
        await event(ws, "full_state_snapshot")
        for reader in served.plane.hub._monitors:
            reader.lose("this reader was too slow")
        resync = await event(ws, "resync")
        assert resync["reason"] == "this reader was too slow"
        await event(ws, "full_state_snapshot")


async def test_a_control_plane_that_stops_says_goodbye(served: Served) -> None:
    async with watching(served) as ws:
        await event(ws, "full_state_snapshot")
        await served.plane.hub.stop()
        async with asyncio.timeout(10):
            while (message := await ws.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert ws.close_code == 1001


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def guarded() -> AsyncIterator[Served]:
    async with serving(token="right") as served:
        yield served


@pytest.mark.parametrize("query", ["", "?token=wrong", "?token="])
async def test_without_a_token_the_socket_is_accepted_and_closed_with_1008(guarded: Served, query: str) -> None:
    async with watching(guarded, query) as ws:
        code, reason = await closed_with(ws)
    assert code == 1008
    assert "token" in reason
    assert guarded.plane.hub.readers == 0


async def test_without_the_right_the_socket_is_closed_with_1008(guarded: Served) -> None:
    _, text = await guarded.plane.access.create(Wanted(name="chat", role=Role.CLIENT))
    async with watching(guarded, headers={"Authorization": f"Bearer {text}"}) as ws:
        code, reason = await closed_with(ws)
    assert code == 1008
    assert "viewer" in reason
    assert text not in reason


async def test_a_token_may_be_in_the_header_or_in_the_query(guarded: Served) -> None:
    _, text = await guarded.plane.access.create(Wanted(name="eye", role=Role.VIEWER))
    for query, headers in ((f"?token={text}", {}), ("", {"Authorization": f"Bearer {text}"})):
        async with watching(guarded, query, headers=headers) as ws:
            await event(ws, "full_state_snapshot")


async def test_too_many_sockets_of_one_token_are_told_to_come_back_later(guarded: Served) -> None:
    _, text = await guarded.plane.access.create(Wanted(name="eye", role=Role.VIEWER, requests_per_s=0.001))
    async with watching(guarded, f"?token={text}") as ws:
        await event(ws, "full_state_snapshot")
    async with watching(guarded, f"?token={text}") as ws:
        code, reason = await closed_with(ws)
    assert code == 1013
    assert "per second" in reason


async def test_a_socket_that_nobody_serves_is_refused_to_all_but_admins(guarded: Served) -> None:
    async with guarded.client.ws_connect("/ws/nothing/1") as ws:
        code, _ = await closed_with(ws)
    assert code == 1008


# --- frames -----------------------------------------------------------------------------------------------------------


def test_messages_are_the_events_with_their_ids() -> None:
    frames = b'data: {"type":"a"}\n\nid: 7-0\ndata: {"type":"b"}\n\n: keep-alive\n\n'

    assert list(messages_in(frames)) == [b'{"type":"a"}', b'{"event_id":"7-0","type":"b"}']
