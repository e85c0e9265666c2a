"""Several control planes over one store: who took a command does not matter, nor who the node talks to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from muster.commands.order import Order
from muster.control import commands
from muster.control.commands import COMMANDS_TOPIC
from muster.domain.command import Command, CommandStatus
from muster.errors import InvalidInput, QueueFull, StoreUnavailable
from muster.ids import CommandId, NodeId
from muster.wire import CommandPoll, CommandReport, CommandReports
from tests.planes import PlaneUnderTest
from tests.waiting import eventually

NODE = NodeId("n1")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_BUS_RETRY_S", 0.01)


@asynccontextmanager
async def planes(count: int = 2) -> AsyncIterator[list[PlaneUnderTest]]:
    """Control planes on one store, with one node that all have heard of."""
    first = PlaneUnderTest()
    all_planes = [first, *(PlaneUnderTest(beside=first) for _ in range(count - 1))]
    for plane in all_planes:
        await plane.heartbeat(NODE)
        await plane.commands.start()
    yield all_planes
    for plane in all_planes:
        await plane.commands.stop()


def order(command: str = "status", **more: Any) -> Order:
    fields: dict[str, Any] = {"nodes": (NODE,), "timeout_s": 60.0} | more
    return Order(command=command, single=True, **fields)


async def told(plane: PlaneUnderTest, node: str = NODE, wait_s: float = 0.0) -> list[CommandId]:
    poll = CommandPoll(node_id=NodeId(node), boot_id=f"{node}-boot", wait_s=wait_s)
    return [command.command_id for command in (await plane.commands.next_commands(poll)).commands]


async def report(plane: PlaneUnderTest, command_id: str, status: CommandStatus, **more: Any) -> None:
    reports = (CommandReport(command_id=CommandId(command_id), status=status, **more),)
    await plane.commands.report(CommandReports(node_id=NODE, reports=reports))


def stands(plane: PlaneUnderTest, command_id: str) -> Command | None:
    return next((command for command in plane.commands.newest() if command.command_id == command_id), None)


async def test_a_command_reaches_its_node_at_another_control_plane_and_the_result_comes_back() -> None:
    async with planes() as (ours, theirs):
        waiting = asyncio.create_task(told(theirs, wait_s=30))
        issued = await ours.commands.issue(order())
        assert await waiting == [issued.command_id]
        await report(theirs, issued.command_id, CommandStatus.DONE, result=7)
        await eventually(lambda: ours.commands.find(issued.command_id)[0].result == 7)
        assert stands(ours, issued.command_id) == stands(theirs, issued.command_id)


async def test_an_id_that_another_control_plane_took_is_known_here() -> None:
    async with planes() as (ours, theirs):
        await ours.commands.issue(order(command_id=CommandId("mine")))
        await eventually(lambda: stands(theirs, "mine"))
        again = await theirs.commands.issue(order(command_id=CommandId("mine")))
        assert not again.created


async def test_an_id_that_comes_twice_at_once_is_one_command() -> None:
    async with planes(1) as (plane,):
        mine = order(command_id=CommandId("mine"))
        answers = await asyncio.gather(*(plane.commands.issue(mine) for _ in range(5)))
        assert [answer.created for answer in answers] == [True, False, False, False, False]


async def test_one_expires_it_and_all_know() -> None:
    async with planes() as (ours, theirs):
        issued = await ours.commands.issue(order(timeout_s=5.0))
        await eventually(lambda: stands(theirs, issued.command_id))
        theirs.clock.advance(6)
        await theirs.commands.tick()
        await eventually(lambda: ours.commands.find(issued.command_id)[0].status is CommandStatus.EXPIRED)
        kinds = [*await ours.recorded(), *await theirs.recorded()]
        assert kinds.count("command_expired") == 1


async def test_what_was_missed_while_the_bus_was_away_is_read_from_the_store() -> None:
    async with planes() as (ours, theirs):
        await eventually(lambda: len(ours.store.bus._subscribers[COMMANDS_TOPIC]) == 2)
        await theirs.commands.stop()
        issued = await ours.commands.issue(order())
        await theirs.commands.start()
        await eventually(lambda: stands(theirs, issued.command_id))


async def test_a_message_that_is_none_does_not_end_the_following() -> None:
    async with planes() as (ours, theirs):
        await eventually(lambda: len(ours.store.bus._subscribers[COMMANDS_TOPIC]) == 2)
        await ours.store.bus.publish(COMMANDS_TOPIC, b"{")
        issued = await ours.commands.issue(order())
        await eventually(lambda: stands(theirs, issued.command_id))


async def test_a_later_life_takes_up_what_an_earlier_one_left() -> None:
    async with planes(1) as (first,):
        issued = await first.commands.issue(order())
        second = PlaneUnderTest(beside=first)
        await second.commands.load()
        assert await told(second) == [issued.command_id]


async def test_a_link_that_pushes_is_told_once_of_what_was_issued_here() -> None:
    async with planes() as (ours, theirs):
        here: list[Command] = []
        there: list[Command] = []
        ours.commands.on_issued(here.append)
        theirs.commands.on_issued(there.append)
        for _ in range(2):
            await ours.commands.issue(order(command_id=CommandId("mine")))
        await eventually(lambda: stands(theirs, "mine"))
        assert [command.command_id for command in here] == ["mine"]
        assert not there


async def test_without_its_store_nothing_is_issued_and_a_report_counts_once_it_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with planes(1) as (plane,):
        issued = await plane.commands.issue(order())
        save = plane.store.commands.save

        async def away(_: Any) -> None:
            raise StoreUnavailable("the store is away")

        monkeypatch.setattr(plane.store.commands, "save", away)
        with pytest.raises(StoreUnavailable):
            await plane.commands.issue(order("drain"))
        assert len(plane.commands.newest()) == 1
        assert not plane.fleet.node(NODE).draining
        with pytest.raises(StoreUnavailable):
            await report(plane, issued.command_id, CommandStatus.DONE)
        monkeypatch.setattr(plane.store.commands, "save", save)
        await report(plane, issued.command_id, CommandStatus.DONE)  # the node says it again
        assert [kept.status for kept in await plane.store.commands.load()] == [CommandStatus.DONE]


async def test_what_was_issued_is_told_even_if_it_cannot_be_published(monkeypatch: pytest.MonkeyPatch) -> None:
    async with planes(1) as (plane,):

        async def away(_: str, __: bytes) -> None:
            raise StoreUnavailable("the store is away")

        waiting = asyncio.create_task(told(plane, wait_s=30))
        await eventually(lambda: plane.commands._waiting)
        monkeypatch.setattr(plane.store.bus, "publish", away)
        issued = await plane.commands.issue(order())
        assert issued.created
        with pytest.raises(StoreUnavailable):
            await waiting


async def test_a_command_that_comes_while_the_store_is_slow_does_not_fall_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with planes(1) as (plane,):
        await plane.heartbeat("n2")
        await plane.commands.issue(order(nodes=(NodeId("n2"),)))
        save, slow = plane.store.commands.save, asyncio.Event()

        async def save_slowly(commands: Any) -> None:
            if commands[0].status is CommandStatus.SENT:
                await slow.wait()
            await save(commands)

        monkeypatch.setattr(plane.store.commands, "save", save_slowly)
        other = asyncio.create_task(told(plane, node="n2"))
        await eventually(plane.commands._writing.locked)
        waiting = asyncio.create_task(told(plane, wait_s=30))  # its first look has to wait for the store
        await eventually(lambda: NODE in plane.commands._waiting)
        issuing = asyncio.create_task(plane.commands.issue(order()))
        await eventually(lambda: len(plane.commands.newest(NODE)) == 1)
        slow.set()
        issued, found, _ = await asyncio.gather(issuing, waiting, other)
        assert found == [issued.command_id]


async def test_a_retired_boot_gets_nothing() -> None:
    async with planes(1) as (plane,):
        await plane.heartbeat(NODE, boot_id="n1-later", seq=1)
        plane.clock.advance(40)
        await plane.heartbeat(NODE, boot_id="n1-later", seq=2)
        assert plane.fleet.node(NODE).boot_id == "n1-later"
        await plane.commands.issue(order())
        assert await told(plane) == []


async def test_a_result_that_is_too_large_fails_the_command() -> None:
    async with planes(1) as (plane,):
        issued = await plane.commands.issue(order())
        await report(plane, issued.command_id, CommandStatus.DONE, result="x" * 300_000)
        (command,) = plane.commands.find(issued.command_id)
        assert command.error == "its result of 300002 bytes is over the limit of 262144"


async def test_a_failure_without_a_reason_says_so() -> None:
    async with planes(1) as (plane,):
        issued = await plane.commands.issue(order())
        await report(plane, issued.command_id, CommandStatus.FAILED)
        assert plane.commands.find(issued.command_id)[0].error == "failed for an unknown reason"


async def test_reports_that_make_no_sense_are_refused_as_a_whole() -> None:
    async with planes(1) as (plane,):
        issued = await plane.commands.issue(order())
        done = CommandReport(command_id=issued.command_id, status=CommandStatus.DONE)
        odd = CommandReport(command_id=issued.command_id, status=CommandStatus.SENT)
        with pytest.raises(InvalidInput, match="status must be acked, done or failed"):
            await plane.commands.report(CommandReports(node_id=NODE, reports=(done, odd)))
        with pytest.raises(InvalidInput, match="at most 1000 reports"):
            await plane.commands.report(CommandReports(node_id=NODE, reports=(done,) * 1001))
        assert plane.commands.find(issued.command_id)[0].status is CommandStatus.CREATED


async def test_many_open_commands_are_a_limit_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with planes(1) as (plane,):
        monkeypatch.setattr(plane.commands._book, "_open_max", 1)
        await plane.commands.issue(order())
        with pytest.raises(QueueFull, match="commands_max"):
            await plane.commands.issue(order())


async def test_a_poll_that_waits_in_vain_ends_and_leaves_nothing_behind() -> None:
    async with planes(1) as (plane,):
        assert await told(plane, wait_s=0.01) == []
        assert not plane.commands._waiting
