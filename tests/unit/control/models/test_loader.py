"""Loading for those who ask: what goes wrong is said, and nobody waits for ever."""

import asyncio

import pytest

from muster.control.models import loader
from muster.control.models.loader import ModelLoader
from muster.domain.command import CommandStatus
from muster.domain.model import Model
from muster.domain.node import NodeFacts, Resources
from muster.domain.residency import ModelPolicy
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.errors import ModelAsleep, ShuttingDown
from muster.ids import NodeId
from muster.wire import CommandPoll, CommandReport, CommandReports
from tests.planes import PlaneUnderTest
from tests.waiting import eventually

MB = 1024 * 1024


def service(*, resident: bool) -> Service:
    return Service(
        name="ollama",
        connector="ollama",
        status=ServiceStatus.RUNNING,
        url="http://127.0.0.1:1",
        dialects=(Dialect.OLLAMA,),
        on_demand=True,
        models=(Model(name="m", resident=resident, size_bytes=MB),),
    )


async def node(plane: PlaneUnderTest, name: str, seq: int = 1, *, resident: bool = False) -> None:
    await plane.heartbeat(
        name,
        seq,
        facts=NodeFacts(node_id=NodeId(name), models=ModelPolicy(idle_unload_s=60.0)),
        services=(service(resident=resident),),
        resources=Resources(memory_total_mb=8000, memory_used_mb=0),
    )


async def answer(plane: PlaneUnderTest, name: str, error: str | None = None) -> str:
    """Be the agent: take the next command and end it; return what it was."""

    async def next_command() -> str:
        batch = await plane.commands.next_commands(CommandPoll(node_id=NodeId(name), boot_id=f"{name}-boot"))
        for command in batch.commands:
            status = CommandStatus.DONE if error is None else CommandStatus.FAILED
            report = CommandReport(command_id=command.command_id, status=status, error=error)
            await plane.commands.report(CommandReports(node_id=NodeId(name), reports=(report,)))
            return command.command
        return ""

    return await eventually(next_command)


def wake(plane: PlaneUnderTest) -> "asyncio.Future[None]":
    wait = plane.models.wake("m:latest")
    assert wait is not None
    return asyncio.ensure_future(wait)


async def test_what_is_nowhere_on_disk_cannot_be_woken(plane: PlaneUnderTest) -> None:
    await node(plane, "a", resident=True)
    assert plane.models.wake("m") is None
    assert plane.models.wake("other") is None
    assert list(plane.models.models()) == ["m"]


async def test_who_asks_waits_until_a_heartbeat_shows_it(plane: PlaneUnderTest) -> None:
    await node(plane, "a")
    first, second = wake(plane), wake(plane)
    assert await answer(plane, "a") == "load_model"
    assert plane.models.why("m") == "is being loaded on a/ollama"
    assert not first.done()
    await node(plane, "a", 2, resident=True)
    await asyncio.gather(first, second)
    assert plane.models.why("m") == ""


async def test_where_it_fails_the_next_is_tried_and_then_it_is_said_of_all(plane: PlaneUnderTest) -> None:
    await node(plane, "a")
    await node(plane, "b")
    waiting = wake(plane)
    await answer(plane, "a", "no such file")
    await answer(plane, "b", "out of memory")
    with pytest.raises(ModelAsleep, match=r"a/ollama failed: no such file; b/ollama failed: out of memory"):
        await waiting
    with pytest.raises(ModelAsleep):  # for a while that is everybody's answer
        await wake(plane)


async def test_a_load_that_does_not_show_is_a_failure(plane: PlaneUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_SHOWN_S", -1.0)
    await node(plane, "a")
    waiting = wake(plane)
    await answer(plane, "a")
    with pytest.raises(ModelAsleep, match="did not show it"):
        await waiting


async def test_nobody_waits_for_ever(plane: PlaneUnderTest) -> None:
    await node(plane, "a")
    short = ModelLoader(plane.fleet, plane.commands, plane.models.uses, plane.clock, timeout_s=0.05, leads=lambda: True)
    wait = short.wake("m")
    assert wait is not None
    with pytest.raises(ModelAsleep, match=r"not in memory within 0\.05 s: is being loaded on a/ollama"):
        await wait


async def test_who_waits_at_the_stop_is_told(plane: PlaneUnderTest) -> None:
    await node(plane, "a")
    waiting = wake(plane)
    await eventually(lambda: plane.models.why("m"))
    await plane.models.stop()
    with pytest.raises(ShuttingDown):
        await waiting


async def test_what_nobody_uses_is_unloaded_once(plane: PlaneUnderTest) -> None:
    await node(plane, "a", resident=True)
    await plane.models.tick()
    assert plane.commands.newest(NodeId("a")) == []
    plane.clock.advance(25.0)
    await node(plane, "a", 2, resident=True)
    plane.clock.advance(25.0)
    await node(plane, "a", 3, resident=True)
    plane.clock.advance(11.0)
    await plane.models.tick()
    await plane.models.tick()
    (command,) = plane.commands.newest(NodeId("a"))
    assert (command.command, command.args["model"], command.issued_by) == ("unload_model", "m", "nobody used it")
