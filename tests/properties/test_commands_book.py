"""Whatever is asked, answered and lost: a command ends once, and the book stays within its bound."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from muster.commands.book import CommandBook, Effect, SaveCommand
from muster.commands.lifecycle import ENDED
from muster.domain.command import Command, CommandStatus
from muster.errors import CommandNotFound, QueueFull
from muster.ids import CommandId, NodeId

COMMANDS_MAX = 4
NODE = NodeId("gpu-1")
ORDER = [CommandStatus.CREATED, CommandStatus.SENT, CommandStatus.ACKED]

ids = st.sampled_from([CommandId(f"cmd-{number}") for number in range(7)])


class Commands(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.book = CommandBook(COMMANDS_MAX)
        self.store: dict[CommandId, Command] = {}

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SaveCommand):
                command = effect.command
                before = self.store.get(command.command_id)
                if before is not None and command.status is not CommandStatus.CREATED:
                    assert before.status not in ENDED
                    assert command.status in ENDED or ORDER.index(command.status) > ORDER.index(before.status)
                self.store[command.command_id] = command

    @rule(command_id=ids, patience_ms=st.integers(0, 30))
    def issue(self, command_id: CommandId, patience_ms: int) -> None:
        known = self.book.get(command_id)
        command = Command(command_id=command_id, node_id=NODE, command="status", deadline_ms=self.now_ms + patience_ms)
        try:
            effects = self.book.issue(command, self.now_ms)
        except QueueFull:
            return
        assert (effects == []) is (known is not None)
        self.carry_out(effects)

    @rule()
    def send(self) -> None:
        sending = self.book.to_send(NODE, self.now_ms)
        self.carry_out(sending.effects)
        assert all(self.store[command.command_id] == command for command in sending.commands)
        assert {command.status for command in sending.commands} <= {CommandStatus.SENT}

    @rule(command_id=ids)
    def acknowledge(self, command_id: CommandId) -> None:
        try:
            self.carry_out(self.book.acked(command_id, self.now_ms))
        except CommandNotFound:
            assert self.book.get(command_id) is None

    @rule(command_id=ids, error=st.none() | st.just("broken"))
    def finish(self, command_id: CommandId, error: str | None) -> None:
        try:
            self.carry_out(self.book.finished(command_id, self.now_ms, error=error))
        except CommandNotFound:
            return
        command = self.book.get(command_id)
        assert command is not None
        assert command.status in ENDED

    @rule(milliseconds=st.integers(1, 20))
    def time_passes(self, milliseconds: int) -> None:
        self.now_ms += milliseconds
        self.carry_out(self.book.tick(self.now_ms))
        assert all(
            command.deadline_ms >= self.now_ms
            for command in self.store.values()
            if command.status not in ENDED and self.book.get(command.command_id) is command
        )

    @rule()
    def control_plane_restarts(self) -> None:
        kept = [command for command in self.store.values() if self.book.get(command.command_id) is command]
        self.book = CommandBook(COMMANDS_MAX)
        self.book.load(kept)

    @invariant()
    def the_book_is_bounded_and_mirrored(self) -> None:
        known = [command for name in self.store if (command := self.book.get(name))]
        assert len(known) <= COMMANDS_MAX
        assert all(self.store[command.command_id] == command for command in known)

    @invariant()
    def no_open_command_is_forgotten(self) -> None:
        assert all(self.book.get(name) for name, command in self.store.items() if command.status not in ENDED)


TestCommands = Commands.TestCase
TestCommands.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
