"""Who asks whom for logs: one control plane and several, nodes that answer, fall silent, are not there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from muster.control.logs import desk as module
from muster.control.logs.desk import CONTROL_PLANE
from muster.control.logs.merge import Note, Source, ToldLine, parse_source, read_all, read_one, together
from muster.errors import Forbidden, InvalidInput, NodeNotConnected, NodeNotFound, NotFound, UpstreamTimeout
from muster.ids import NodeId
from muster.links.memory import MemoryLink
from muster.logs.clerk import LogClerk
from muster.logs.shelf import LogShelf
from muster.wire import CommandPoll, Deregistration, LogChunk, LogChunkReply
from muster.wire.logs import LogLine, LogWish
from tests.clocks import ManualClock
from tests.planes import PlaneUnderTest, running_plane
from tests.waiting import eventually

NODE = NodeId("n1")


class Node:
    """As much of an agent as answers for its logs; it may talk to one control plane and send to another."""

    def __init__(self, folder: Path, asks: PlaneUnderTest, tells: PlaneUnderTest, clock: ManualClock) -> None:
        self.folder = folder
        self._link = MemoryLink(asks.ingest, asks.jobs)
        self.clerk = LogClerk(
            LogShelf(folder, clock), MemoryLink(tells.ingest, tells.jobs).tell_logs, clock, sender=NODE
        )
        self._task = asyncio.create_task(self._poll())

    async def _poll(self) -> None:
        while True:
            batch = await self._link.next_commands(CommandPoll(node_id=NODE, boot_id="n1-boot", wait_s=5))
            self.clerk.take(batch.log_asks)
            await asyncio.sleep(0)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.clerk.stop()

    @property
    def at_work(self) -> int:
        return len(self.clerk._running)

    def wrote(self, name: str, text: str) -> None:
        self.folder.mkdir(exist_ok=True)
        with (self.folder / f"{name}.log").open("a") as file:
            file.write(text)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REPEAT_S", 0.05)
    monkeypatch.setattr(module, "_AGAIN_S", 0.02)
    monkeypatch.setattr(module, "_UNHEARD_S", 0.2)


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[PlaneUnderTest]:
    async with running_plane(logs=tmp_path / "plane") as plane:
        await plane.heartbeat()
        yield plane


@pytest.fixture
async def node(plane: PlaneUnderTest, tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path / "node", plane, plane, plane.clock)
    node.wrote("llama", "one\ntwo\n")
    yield node
    await node.stop()


def texts(told: list[Any]) -> list[str]:
    return [one.line.text for one in told if isinstance(one, ToldLine)]


def notes(told: list[Any]) -> list[str]:
    return [one.text for one in told if isinstance(one, Note)]


async def test_a_nodes_logs_are_listed_read_and_cleared(plane: PlaneUnderTest, node: Node) -> None:
    (info,) = await plane.logs.infos(NODE)
    assert (info.name, info.bytes) == ("llama", 8)
    told = [one async for one in read_one(plane.logs, Source(NODE, ("llama",)), LogWish())]
    assert texts(told) == ["one", "two"]
    (info,) = await plane.logs.clear(NODE, "*")
    assert info.bytes == 0
    with pytest.raises(NotFound, match="there are llama"):
        await anext(read_one(plane.logs, Source(NODE, ("other",)), LogWish()))


async def test_who_stops_reading_is_not_told_any_more(plane: PlaneUnderTest, node: Node) -> None:
    async with aclosing(read_one(plane.logs, Source(NODE, ("llama",)), LogWish(follow=True))) as told:
        seen = []
        async for one in told:
            seen.append(one)
            if texts(seen) == ["one", "two", "three"]:
                break
            if len(texts(seen)) == 2:
                node.wrote("llama", "three\n")
        assert node.at_work == 1
    node.wrote("llama", "nobody reads this\n")
    await eventually(lambda: node.at_work == 0)
    assert plane.logs._asked == {}


async def test_nobody_is_asked_who_is_not_there(plane: PlaneUnderTest) -> None:
    with pytest.raises(NodeNotFound):
        await plane.logs.infos(NodeId("n9"))
    await plane.heartbeat("n2")
    await plane.ingest.deregister(Deregistration(node_id=NodeId("n2"), boot_id="n2-boot"))
    with pytest.raises((NodeNotFound, NodeNotConnected)):
        await plane.logs.infos(NodeId("n2"))


async def test_a_node_that_does_not_answer_is_given_up(plane: PlaneUnderTest) -> None:
    asked = asyncio.create_task(plane.logs.infos(NODE))
    await eventually(lambda: plane.logs._readings)
    plane.clock.advance(11)
    with pytest.raises(UpstreamTimeout, match="has not answered for 10 s"):
        await asked


async def test_a_node_that_falls_silent_ends_its_own_part_only(
    plane: PlaneUnderTest, node: Node, tmp_path: Path
) -> None:
    (tmp_path / "plane").mkdir()
    (tmp_path / "plane" / "server.log").write_text("here\n")
    sources = [Source(NODE), Source(CONTROL_PLANE)]
    told: list[Any] = []
    async with aclosing(read_all(plane.logs, sources, LogWish(follow=True))) as reading:

        async def read() -> None:
            async for one in reading:
                told[len(told) :] = [one]  # seen at once

        task = asyncio.create_task(read())
        await eventually(lambda: len(texts(told)) == 3)
        await node.stop()
        plane.clock.advance(5)
        (tmp_path / "plane" / "server.log").write_text("here\nstill here\n")
        await eventually(lambda: "still here" in texts(told))
        plane.clock.advance(2)
        await eventually(lambda: notes(told))
        assert notes(told) == ["n1 has fallen silent for 6 s"]
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_reader_may_be_at_another_control_plane_than_the_node(tmp_path: Path) -> None:
    """The node asks one for its commands, and what it sends reaches another: as behind a load balancer."""
    async with (
        running_plane(plane_id="plane-1", logs=tmp_path / "p1") as first,
        running_plane(plane_id="plane-2", beside=first, logs=tmp_path / "p2") as second,
        running_plane(plane_id="plane-3", beside=first, logs=tmp_path / "p3") as third,
    ):
        for plane in (first, second, third):
            await plane.heartbeat()
        node = Node(tmp_path / "node", second, third, first.clock)
        node.wrote("llama", "one\ntwo\n")
        told = [one async for one in read_one(first.logs, Source(NODE), LogWish(tail=2))]
        assert texts(told) == ["one", "two"]
        await node.stop()


async def test_the_name_of_the_control_plane_is_that_of_all_of_them(tmp_path: Path) -> None:
    async with (
        running_plane(plane_id="plane-1", logs=tmp_path / "p1") as first,
        running_plane(plane_id="plane-2", beside=first, logs=tmp_path / "p2"),
    ):
        first.logs._planes = lambda: ["plane-2"]
        for name in ("p1", "p2"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "server.log").write_text(f"of {name}\n")
        told = [one async for one in read_one(first.logs, Source(CONTROL_PLANE), LogWish())]
        assert sorted(texts(told)) == ["of p1", "of p2"]
        (tmp_path / "p2" / "gateway.log").write_text("only of p2\n")
        told = [one async for one in read_one(first.logs, Source(CONTROL_PLANE, ("gateway",)), LogWish())]
        assert texts(told) == ["only of p2"]
        with pytest.raises(NotFound):
            await _all(read_one(first.logs, Source(CONTROL_PLANE, ("nothing",)), LogWish()))


def chunk(number: int, **said: Any) -> LogChunk:
    return LogChunk(node_id=NODE, ask_id=said.pop("ask_id"), sender=NODE, number=number, **said)


async def test_a_slow_reader_makes_the_node_wait_and_loses_nothing(
    plane: PlaneUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROOM_WAIT_S", 0.01)
    async with aclosing(plane.logs.chunks(NODE, "read", LogWish())) as chunks:
        first = asyncio.ensure_future(anext(chunks))
        await eventually(lambda: plane.logs._readings)
        (ask_id,) = plane.logs._readings
        lines = (LogLine(log="a", text="x"),)
        await plane.logs.take(chunk(1, ask_id=ask_id, lines=lines))
        await first
        replies = [await plane.logs.take(chunk(n, ask_id=ask_id, lines=lines)) for n in range(2, 30)]
        taken = sum(reply.taken for reply in replies)
        assert taken == module._CHUNKS_MAX
        assert all(reply.wanted for reply in replies)
        assert (await plane.logs.take(chunk(2, ask_id=ask_id, lines=lines))).taken  # a second time: known
        assert [(await anext(chunks)).number for _ in range(taken)] == list(range(2, taken + 2))


async def test_lines_that_nobody_asked_for_are_not_wanted(plane: PlaneUnderTest) -> None:
    assert await plane.logs.take(chunk(1, ask_id="logs-unknown")) == LogChunkReply(wanted=False)
    asked = asyncio.create_task(plane.logs.infos(NODE))
    await eventually(lambda: plane.logs._readings)
    (ask_id,) = plane.logs._readings
    with pytest.raises(Forbidden, match="n2 was not asked"):
        await plane.logs.take(LogChunk(node_id=NodeId("n2"), ask_id=ask_id, sender="n2", number=1, ended=True))
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked


async def test_a_stop_ends_all_who_follow(plane: PlaneUnderTest, node: Node) -> None:
    async with aclosing(read_one(plane.logs, Source(NODE), LogWish(follow=True))) as told:
        await anext(told)
        rest = asyncio.create_task(_all(told))
        await plane.logs.stop()
        await asyncio.wait_for(rest, 5)


async def _all(told: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in told]


def test_sources_are_nodes_and_their_logs() -> None:
    assert parse_source("n1") == Source(NODE)
    assert parse_source("n1/llama*") == Source(NODE, ("llama*",))
    for wrong in ("", "/llama", "n1/"):
        with pytest.raises(InvalidInput):
            parse_source(wrong)
    assert together([Source(NODE, ("a",)), Source(NodeId("n2")), Source(NODE, ("b",))]) == [
        Source(NODE, ("a", "b")),
        Source(NodeId("n2")),
    ]
    assert together([Source(NODE, ("a",)), Source(NODE)]) == [Source(NODE)]
