"""Commands on their way: issued here, handed to the nodes that ask, answered, expired."""

import asyncio
from collections import defaultdict

from muster.clock import Clock
from muster.commands.book import CommandBook, Effect, Emit, SaveCommand
from muster.control.recorder import Recorder
from muster.domain.command import Command, CommandStatus
from muster.errors import CommandNotFound, InvalidInput
from muster.ids import CommandId, NodeId, check_node_id
from muster.wire import CommandBatch, CommandPoll, CommandReports

_WAIT_S_MAX = 60.0


class CommandService:
    def __init__(self, book: CommandBook, recorder: Recorder, clock: Clock) -> None:
        self._book = book
        self._recorder = recorder
        self._clock = clock
        self._news: defaultdict[NodeId, asyncio.Event] = defaultdict(asyncio.Event)

    def issue(self, command: Command) -> Command:
        """Take a command up; the same id again changes nothing."""
        self._carry_out(self._book.issue(command, self._clock.now_ms()))
        return self.get(command.command_id)

    def get(self, command_id: CommandId) -> Command:
        command = self._book.get(command_id)
        if command is None:
            raise CommandNotFound(f"no command {command_id!r} is known", field="command_id")
        return command

    async def next_commands(self, message: CommandPoll) -> CommandBatch:
        node_id = check_node_id(message.node_id)
        news = self._news[node_id]
        news.clear()
        batch = self._to_send(node_id)
        if not batch.commands and message.wait_s > 0:
            try:
                async with asyncio.timeout(min(message.wait_s, _WAIT_S_MAX)):
                    await news.wait()
            except TimeoutError:
                return batch
            batch = self._to_send(node_id)
        return batch

    async def report(self, message: CommandReports) -> None:
        now_ms = self._clock.now_ms()
        for report in message.reports:
            match report.status:
                case CommandStatus.ACKED:
                    effects = self._book.acked(report.command_id, now_ms)
                case CommandStatus.DONE:
                    effects = self._book.finished(report.command_id, now_ms, result=report.result)
                case CommandStatus.FAILED:
                    error = report.error or "failed for an unknown reason"
                    effects = self._book.finished(report.command_id, now_ms, error=error)
                case _:
                    raise InvalidInput(
                        f"status must be acked, done or failed, got {report.status.value!r}", field="status"
                    )
            self._carry_out(effects)

    def tick(self) -> None:
        self._carry_out(self._book.tick(self._clock.now_ms()))

    def _to_send(self, node_id: NodeId) -> CommandBatch:
        sending = self._book.to_send(node_id, self._clock.now_ms())
        self._carry_out(sending.effects)
        return CommandBatch(commands=sending.commands)

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SaveCommand(command=command):
                    self._news[command.node_id].set()
                case Emit(event=event):
                    self._recorder.emit([event])
