"""Whatever is asked, answered and lost: a command ends once, and all control planes end with the same records."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from muster.commands.book import CommandBook, Effect, SaveCommand
from muster.commands.lifecycle import ENDED, standing
from muster.domain.command import Command, CommandStatus
from muster.domain.job import Progress
from muster.errors import CommandNotFound, QueueFull
from muster.ids import CommandId, NodeId

OPEN_MAX, ENDED_MAX = 4, 100
NODE = NodeId("gpu-1")
FORWARD = [CommandStatus.CREATED, CommandStatus.SENT, CommandStatus.ACKED]

ids = st.sampled_from([CommandId(f"cmd-{number}") for number in range(7)])
planes = st.sampled_from([0, 1])


class Commands(RuleBasedStateMachine):
    """Two control planes with one store; what one publishes reaches the other late, twice or in another order."""

    published = Bundle("published")

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.books = [self.new_book(), self.new_book()]
        self.store: dict[CommandId, Command] = {}

    def new_book(self) -> CommandBook:
        return CommandBook(OPEN_MAX, ENDED_MAX)

    def carry_out(self, effects: list[Effect]) -> Command | None:
        """Keep in the store what is further than what it has; return the last record to be published."""
        saved = None
        for effect in effects:
            if isinstance(effect, SaveCommand):
                saved = effect.command
                before = self.store.get(saved.command_id)
                if before is None or standing(saved) > standing(before):
                    self.store[saved.command_id] = saved
        return saved

    @rule(target=published, plane=planes, command_id=ids, patience_ms=st.integers(0, 30))
    def issue(self, plane: int, command_id: CommandId, patience_ms: int) -> Command | None:
        book = self.books[plane]
        known = book.get(command_id)
        if known is None and command_id in self.store:
            book.merge(self.store[command_id])
            return None
        command = Command(command_id=command_id, node_id=NODE, command="status", deadline_ms=self.now_ms + patience_ms)
        try:
            effects = book.issue(command, self.now_ms)
        except QueueFull:
            return None
        assert (effects == []) is (known is not None)
        return self.carry_out(effects)

    @rule(target=published, plane=planes)
    def send(self, plane: int) -> Command | None:
        sending = self.books[plane].to_send(NODE, self.now_ms)
        assert {command.status for command in sending.commands} <= {CommandStatus.SENT}
        return self.carry_out(sending.effects)

    @rule(target=published, plane=planes, command_id=ids, fraction=st.none() | st.floats(0, 1))
    def acknowledge(self, plane: int, command_id: CommandId, fraction: float | None) -> Command | None:
        progress = None if fraction is None else Progress(fraction=fraction)
        self.now_ms += 1
        try:
            return self.carry_out(self.books[plane].acked(command_id, self.now_ms, progress))
        except CommandNotFound:
            assert self.books[plane].get(command_id) is None
            return None

    @rule(target=published, plane=planes, command_id=ids, error=st.none() | st.just("it broke"))
    def finish(self, plane: int, command_id: CommandId, error: str | None) -> Command | None:
        before = self.books[plane].get(command_id)
        try:
            effects = self.books[plane].finished(command_id, 1, result=command_id, error=error)
        except CommandNotFound:
            return None
        after = self.books[plane].get(command_id)
        assert after is not None
        assert after.status in ENDED
        assert before is not None
        assert (effects == []) is (before.status in ENDED)
        return self.carry_out(effects)

    @rule(target=published, plane=planes, milliseconds=st.integers(1, 20))
    def time_passes(self, plane: int, milliseconds: int) -> Command | None:
        self.now_ms += milliseconds
        saved = self.carry_out(self.books[plane].tick(self.now_ms))
        open_ones = [command for command in self.books[plane].newest() if command.status not in ENDED]
        assert all(command.deadline_ms >= self.now_ms for command in open_ones)
        return saved

    @rule(plane=planes, command=published)
    def hear(self, plane: int, command: Command | None) -> None:
        if command is not None:
            before = self.books[plane].get(command.command_id)
            self.books[plane].merge(command)
            after = self.books[plane].get(command.command_id)
            assert after is not None
            assert before is None or standing(after) == max(standing(before), standing(command))
            assert not self.books[plane].merge(command)

    @rule(command=consumes(published))
    def lose(self, command: Command | None) -> None:
        """Let a gap be in what was published; who notices reads the store."""

    @rule(plane=planes)
    def restart(self, plane: int) -> None:
        self.books[plane] = self.new_book()
        self.read_the_store(plane)

    @rule()
    def everybody_reads_the_store(self) -> None:
        for plane in (0, 1):
            self.read_the_store(plane)
        for command_id, command in self.store.items():
            for book in self.books:
                found = book.get(command_id)
                assert found is not None
                assert standing(found) == standing(command)

    def read_the_store(self, plane: int) -> None:
        for command in self.store.values():
            self.books[plane].merge(command)

    @invariant()
    def what_waits_belongs_to_its_node_and_is_open(self) -> None:
        for book in self.books:
            unanswered = book.unanswered(NODE)
            assert unanswered is None or unanswered.status is CommandStatus.EXPIRED
            in_book = [command for command in book.newest() if command.status not in ENDED]
            assert len({command.command_id for command in in_book}) == len(in_book)


TestCommands = Commands.TestCase
TestCommands.settings = settings(max_examples=100, stateful_step_count=40)
