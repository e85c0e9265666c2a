import asyncio
from typing import Any

from muster.agent import commands as desks
from muster.agent.commands import CommandDesk
from muster.agent.outbox import Outbox
from muster.domain.command import Command
from muster.ids import CommandId
from tests.unit.agent.nodes import NODE
from tests.unit.agent.virtual_time import LoopClock, in_virtual_time, time_passes


def command(name: str, number: int = 1) -> Command:
    return Command(command_id=CommandId(f"command-{number}"), node_id=NODE, command=name, args={"n": number})


def told(outbox: Outbox) -> list[tuple[str, dict[str, Any]]]:
    return [(event.kind, event.data) for event in outbox.batch(100)]


@in_virtual_time
async def test_a_command_is_carried_out_once_however_often_it_comes() -> None:
    seen: list[Any] = []

    async def note(args: dict[str, Any]) -> str:
        seen.append(args)
        return "noted"

    outbox = Outbox(NODE, LoopClock())
    desk = CommandDesk({"note": note}, outbox)
    desk.take([command("note"), command("note")])
    await time_passes(1)
    desk.take([command("note")])
    await time_passes(1)
    assert seen == [{"n": 1}]
    assert told(outbox) == [("command_done", {"command_id": "command-1", "command": "note", "result": "noted"})]
    ended = desk.done
    assert ended == ("command-1",)
    desk.acknowledged(ended)
    assert not desk.done


@in_virtual_time
async def test_what_cannot_be_carried_out_is_told() -> None:
    async def fail(_: dict[str, Any]) -> None:
        raise ValueError("no such thing")

    outbox = Outbox(NODE, LoopClock())
    desk = CommandDesk({"fail": fail}, outbox)
    desk.take([command("fail", 1), command("dance", 2)])
    await time_passes(1)
    assert [(kind, data["error"]) for kind, data in told(outbox)] == [
        ("command_failed", "no such thing"),
        ("command_failed", "unknown command; this agent knows fail"),
    ]
    assert desk.done == ("command-1", "command-2")


@in_virtual_time
async def test_the_ids_of_old_commands_are_not_kept_for_ever() -> None:
    async def note(_: dict[str, Any]) -> None:
        return None

    desk = CommandDesk({"note": note}, Outbox(NODE, LoopClock()))
    for number in range(desks.KNOWN_MAX + 10):
        desk.take([command("note", number)])
    assert len(desk._known) == desks.KNOWN_MAX
    await desk.stop()


@in_virtual_time
async def test_a_stop_ends_commands_that_are_under_way() -> None:
    async def hang(_: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    desk = CommandDesk({"hang": hang}, Outbox(NODE, LoopClock()))
    desk.take([command("hang")])
    await time_passes(1)
    await desk.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
