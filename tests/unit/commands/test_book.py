from collections.abc import Sequence
from typing import Any

import pytest

from muster.commands.book import CommandBook, Effect, Emit, SaveCommand
from muster.domain.command import Command, CommandStatus
from muster.domain.job import Progress
from muster.errors import CommandNotFound, QueueFull
from muster.ids import CommandId, NodeId
from tests.unit.commands.makers import FIRST, NODE, command


def issued(**limits: int) -> CommandBook:
    commands = CommandBook(**limits)
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
    (_, emitted) = effects
    assert isinstance(emitted, Emit)
    assert (emitted.event.kind, emitted.event.key, emitted.event.at_ms) == ("command_created", NODE, 7)
    assert emitted.event.data == {"node_id": NODE, "command_id": FIRST, "command": "status"}


def told(effects: Sequence[Effect]) -> dict[str, Any]:
    (data,) = [effect.event.data for effect in effects if isinstance(effect, Emit)]
    return data


def test_the_log_says_who_had_what_done_with_which_result() -> None:
    commands = CommandBook()
    asked = command(issued_by="ops", command="logs", args={"service": "llama"})
    about = {"node_id": NODE, "command_id": FIRST, "command": "logs"}
    assert told(commands.issue(asked, 0)) == about | {"by": "ops", "args": {"service": "llama"}}
    assert told(commands.to_send(NODE, 1).effects) == about
    assert told(commands.finished(FIRST, 2, result=["a line"])) == about | {"by": "ops", "result": ["a line"]}


def test_the_log_has_large_results_in_brief() -> None:
    effects = issued().finished(FIRST, 2, result="x" * 10_000)
    assert told(effects)["result"] == {"size_bytes": 10_002}
    assert effects[0] == SaveCommand(command(status=CommandStatus.DONE, result="x" * 10_000, ended_at_ms=2))


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
    assert kinds(effects) == ["command_failed"]
    assert told(effects)["reason"] == "no such service"


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


def test_the_book_takes_so_many_open_commands() -> None:
    commands = issued(open_max=2)
    commands.issue(command("cmd-2"), 2)
    with pytest.raises(QueueFull, match="commands_max") as full:
        commands.issue(command("cmd-3"), 3)
    assert full.value.field == "commands_max"
    commands.finished(FIRST, 4)
    commands.check_room(1)
    with pytest.raises(QueueFull):
        commands.check_room(2)


def test_the_book_lets_the_oldest_ended_commands_go() -> None:
    commands = issued(ended_max=1)
    commands.issue(command("cmd-2", group_id=CommandId("group")), 2)
    commands.issue(command("cmd-3", group_id=CommandId("group")), 2)
    for command_id in ("cmd-2", FIRST, "cmd-3"):
        commands.finished(CommandId(command_id), 3)
    assert [found.command_id for found in commands.newest()] == ["cmd-3"]
    assert [found.command_id for found in commands.find(CommandId("group"))] == ["cmd-3"]
    commands.issue(command("cmd-4"), 4)
    commands.finished(CommandId("cmd-4"), 5)
    assert commands.find(CommandId("group")) == ()


def test_a_group_is_found_by_its_id() -> None:
    commands = issued()
    for name, node in (("a", "gpu-1"), ("b", "gpu-2")):
        commands.issue(command(name, node, group_id=CommandId("group")), 1)
    assert [found.command_id for found in commands.find(CommandId("group"))] == ["a", "b"]
    assert [found.command_id for found in commands.find(FIRST)] == [FIRST]
    assert commands.find(CommandId("c")) == ()


def test_commands_are_listed_newest_first_by_node_and_status() -> None:
    commands = issued()
    commands.issue(command("b", "gpu-2"), 1)
    commands.issue(command("c"), 2)
    commands.acked(CommandId("c"), 3)
    assert [found.command_id for found in commands.newest()] == ["c", "b", FIRST]
    assert [found.command_id for found in commands.newest(NODE)] == ["c", FIRST]
    assert [found.command_id for found in commands.newest(NODE, CommandStatus.ACKED)] == ["c"]


def test_progress_is_kept_while_the_command_runs() -> None:
    commands = issued()
    first = commands.acked(FIRST, 1, Progress(fraction=0.1))
    assert kinds(first) == ["command_acked"]
    (saved,) = commands.acked(FIRST, 2, Progress(fraction=0.2))
    assert isinstance(saved, SaveCommand)
    assert saved.command.progress == Progress(fraction=0.2, at_ms=2)
    commands.finished(FIRST, 3)
    assert commands.acked(FIRST, 4, Progress(fraction=0.3)) == []


def test_a_node_shows_the_newest_command_it_left_unanswered() -> None:
    commands = issued()
    commands.issue(command("cmd-2", deadline_ms=2_000), 0)
    assert commands.unanswered(NODE) is None
    commands.tick(1_500)
    assert commands.unanswered(NODE) == commands.get(FIRST)
    commands.tick(2_500)
    assert commands.unanswered(NODE) == commands.get(CommandId("cmd-2"))
    commands.issue(command("cmd-3", deadline_ms=9_000), 3_000)
    commands.acked(CommandId("cmd-3"), 3_001)
    assert commands.unanswered(NODE) is None


def test_an_unanswered_command_that_is_forgotten_is_not_shown() -> None:
    commands = issued(ended_max=1)
    commands.tick(2_000)
    commands.issue(command("cmd-2", "gpu-2"), 0)
    commands.finished(CommandId("cmd-2"), 1)
    assert commands.unanswered(NODE) is None


def test_a_restarted_control_plane_goes_on_with_what_was_saved() -> None:
    before = issued()
    before.issue(command("cmd-2"), 0)
    before.finished(CommandId("cmd-2"), 1)
    commands = CommandBook()
    assert all(commands.merge(saved) for saved in before.newest())
    assert [sent.command_id for sent in commands.to_send(NODE, 2).commands] == [FIRST]
    assert commands.finished(CommandId("cmd-2"), 3) == []


def test_of_two_books_the_further_state_counts_and_the_answer_before_its_absence() -> None:
    ours, theirs = issued(), issued()
    theirs.to_send(NODE, 1)
    (sent,) = theirs.newest()
    assert ours.merge(sent)
    assert not ours.merge(sent)
    assert not theirs.merge(command())
    ours.tick(1_001)
    theirs.finished(FIRST, 1_000, result=7)
    (expired,), (done,) = ours.newest(), theirs.newest()
    assert ours.merge(done)
    assert not theirs.merge(expired)
    assert ours.newest() == theirs.newest() == [done]
    assert ours.unanswered(NODE) is None


def test_commands_are_counted_by_where_they_stand() -> None:
    commands = issued()
    assert commands.counts() == {CommandStatus.CREATED: 1}
