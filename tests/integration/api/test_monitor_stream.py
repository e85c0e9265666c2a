"""The monitor's stream over the real front: what is the same for all is written to all at once, past all layers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec

from muster.domain.node import NodeFacts
from muster.ids import NodeId
from tests.integration.api.conftest import Served

_LINE_BYTES = 2**20
_MORE_THAN_SOCKETS_HOLD = 160  # times 100 KB


def looks(served: Served) -> Any:
    return served.client.get("/api/events/monitor", read_bufsize=_LINE_BYTES)


async def told(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Read what is told; a chunk that is framed wrongly would break the connection."""
    async with asyncio.timeout(20):
        while line := await answer.content.readline():
            if line.startswith(b"data: "):
                yield msgspec.json.decode(line.removeprefix(b"data: "))


async def until(stream: AsyncIterator[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    found = []
    async for message in stream:
        found.append(message)
        if message["type"] == kind:
            return found
    raise AssertionError(f"the stream ended without {kind}")


async def test_every_reader_is_told_the_same_in_the_same_order(served: Served) -> None:
    async with looks(served) as one, looks(served) as other:
        streams = (told(one), told(other))
        for stream in streams:
            await until(stream, "full_state_snapshot")
        for number in range(30):
            await served.plane.heartbeat(
                "n1", seq=number + 1, facts=NodeFacts(node_id=NodeId("n1"), labels={"at": str(number)})
            )
            await asyncio.sleep(0)
        seen = []
        for stream in streams:
            at: list[int] = []
            while not at or at[-1] < 29:
                update = (await until(stream, "machine_update"))[-1]
                at.append(int(update["machine"]["labels"]["at"]))
            seen.append(at)
    assert all(at == sorted(at) for at in seen)


async def test_lesson_who_reads_slowly_gets_a_snapshot_instead_and_holds_up_nobody(served: Served) -> None:
    large = NodeFacts(node_id=NodeId("large"), labels={"about": "x" * 100_000})
    await served.plane.heartbeat("large", facts=large)
    async with looks(served) as slow, looks(served) as quick:
        slow_told, quick_told = told(slow), told(quick)
        for stream in (slow_told, quick_told):
            await until(stream, "full_state_snapshot")
        for _ in range(_MORE_THAN_SOCKETS_HOLD):
            served.plane.hub.nodes_changed([NodeId("large")])
            kinds = {message["type"] for message in await until(quick_told, "machine_update")}
            assert "resync" not in kinds
        assert (await until(slow_told, "resync"))[-1]["reason"] == "this reader was too slow"
        (snapshot, *_) = await until(slow_told, "full_state_snapshot")
        assert snapshot["data"]["machines"][0]["machine_id"] == "large"
    assert served.plane.hub.gaps == 1
