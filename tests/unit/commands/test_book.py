from collections.abc import Sequence

import pytest

from muster.commands.book import CommandBook, Effect, Emit, SaveCommand
from muster.domain.command import Command, CommandStatus
from muster.errors import CommandNotFound, QueueFull
from muster.ids import CommandId, NodeId

NODE = NodeId("gpu-1")
FIRST = CommandId("cmd-1")


def command(command_id: str = FIRST, node_id: str = NODE, deadline_ms: int = 1_000) -> Command:
    return Command(command_id=CommandId(command_id), node_id=NodeId(node_id), command="status", deadline_ms=deadline_ms)


def issued(commands_max: int = 10) -> CommandBook:
    commands = CommandBook(commands_max)
    commands.issue(command(), 0)
    return commands


def status(commands: CommandBook, command_id: str = FIRST) -> CommandStatus | None:
    found = commands.get(CommandId(command_id))
    return None if found is None else found.status


def kinds(effects: Sequence[Effect]) -> list[str]:
    return [effect.event.kind for effect in effects if isinstance(effect, Emit)]


def test_an_issued_command_is_saved_and_told() -> None:
    commands = CommandBook()
    effects = commands.issue(command(), 7)
    assert effects[0] == SaveCommand(
        Command(command_id=FIRST, node_id=NODE, command="status", created_at_ms=7, deadline_ms=1_000)
    )
    (_, told) = effects
    assert isinstance(told, Emit)
    assert (told.event.kind, told.event.key, told.event.at_ms) == ("command_created", NODE, 7)
    assert told.event.data == {"node_id": NODE, "command_id": FIRST, "command": "status"}


def test_the_same_id_twice_is_one_command() -> None:
    commands = issued()
    assert commands.issue(command(), 1) == []
    commands.to_send(NODE, 1)
    commands.finished(FIRST, 2)
    assert commands.issue(command(), 3) == []
    assert commands.to_send(NODE, 3).commands == ()


def test_a_command_is_sent_with_every_reply_until_it_is_acknowledged() -> None:
    commands = issued()
    first = commands.to_send(NODE, 1)
    assert [sent.status for sent in first.commands] == [CommandStatus.SENT]
    assert kinds(first.effects) == ["command_sent"]
    again = commands.to_send(NODE, 2)
    assert (again.commands, again.effects) == (first.commands, [])
    assert kinds(commands.acked(FIRST, 3)) == ["command_acked"]
    assert commands.acked(FIRST, 4) == []
    assert commands.to_send(NODE, 5).commands == ()


def test_a_node_gets_its_own_commands_only() -> None:
    assert issued().to_send(NodeId("gpu-2"), 1).commands == ()


def test_a_result_ends_a_command_once() -> None:
    commands = issued()
    commands.to_send(NODE, 1)
    effects = commands.finished(FIRST, 5, result={"ok": True})
    ended = commands.get(FIRST)
    assert ended is not None
    assert (ended.status, ended.result, ended.ended_at_ms) == (CommandStatus.DONE, {"ok": True}, 5)
    assert kinds(effects) == ["command_done"]
    assert commands.finished(FIRST, 6, error="no, it failed") == []
    assert commands.acked(FIRST, 6) == []
    assert commands.get(FIRST) is ended


def test_a_failure_tells_why() -> None:
    commands = issued()
    effects = commands.finished(FIRST, 5, error="no such service")
    assert status(commands) is CommandStatus.FAILED
    told = effects[1]
    assert isinstance(told, Emit)
    assert (told.event.kind, told.event.data["reason"]) == ("command_failed", "no such service")


def test_silence_beyond_the_deadline_is_an_end_too() -> None:
    commands = issued()
    assert commands.tick(1_000) == []
    assert commands.to_send(NODE, 1_001).commands == ()
    assert kinds(commands.tick(1_001)) == ["command_expired"]
    expired = commands.get(FIRST)
    assert expired is not None
    assert (expired.status, expired.error) == (CommandStatus.EXPIRED, "no answer by its deadline")
    assert commands.tick(1_002) == []
    assert commands.finished(FIRST, 1_003, result=1) == []


def test_an_acknowledged_command_expires_for_want_of_a_result() -> None:
    commands = issued()
    commands.acked(FIRST, 1)
    commands.tick(1_001)
    expired = commands.get(FIRST)
    assert expired is not None
    assert expired.error == "no result by its deadline"


def test_an_answer_to_no_command_is_an_error() -> None:
    with pytest.raises(CommandNotFound, match="cmd-9"):
        issued().acked(CommandId("cmd-9"), 1)


def test_the_book_is_bounded_and_lets_ended_commands_go_first() -> None:
    commands = issued(commands_max=2)
    commands.finished(FIRST, 1)
    commands.issue(command("cmd-2"), 2)
    assert status(commands) is CommandStatus.DONE
    commands.issue(command("cmd-3"), 3)
    assert status(commands) is None
    with pytest.raises(QueueFull, match="commands_max") as full:
        commands.issue(command("cmd-4"), 4)
    assert full.value.field == "commands_max"


def test_a_restarted_control_plane_goes_on_with_what_was_saved() -> None:
    before = issued()
    before.issue(command("cmd-2"), 0)
    before.finished(CommandId("cmd-2"), 1)
    saved = [found for name in (FIRST, "cmd-2") if (found := before.get(CommandId(name)))]
    commands = CommandBook()
    assert commands.load(saved) == []
    assert [sent.command_id for sent in commands.to_send(NODE, 2).commands] == [FIRST]
    assert commands.finished(CommandId("cmd-2"), 3) == []
