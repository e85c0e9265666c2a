"""The book of commands: issued once, sent until acknowledged, answered once or expired.

Pure as the book of nodes is: time comes in, effects go out.
"""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from muster.commands.lifecycle import ENDED, CommandSignal, next_status
from muster.domain.command import Command, CommandStatus
from muster.domain.event import Emit, Event
from muster.errors import CommandNotFound, QueueFull
from muster.ids import CommandId, NodeId

__all__ = ["CommandBook", "Effect", "Emit", "SaveCommand", "ToSend"]

_FULL_RETRY_S = 10.0


class SaveCommand(Struct, frozen=True):
    command: Command


Effect = SaveCommand | Emit


class ToSend(Struct, frozen=True):
    commands: tuple[Command, ...]
    effects: list[Effect]


class CommandBook:
    """Open commands, and the newest ended ones: so many that a repeated id is known, at most `commands_max` in all."""

    def __init__(self, commands_max: int = 1000) -> None:
        self._commands_max = commands_max
        self._open: dict[CommandId, Command] = {}
        self._ended: dict[CommandId, Command] = {}

    def load(self, commands: Iterable[Command]) -> list[Effect]:
        for command in commands:
            (self._ended if command.status in ENDED else self._open)[command.command_id] = command
        return []

    def get(self, command_id: CommandId) -> Command | None:
        return self._open.get(command_id) or self._ended.get(command_id)

    def issue(self, command: Command, now_ms: int) -> list[Effect]:
        """Take a command up; the same id again changes nothing."""
        if self.get(command.command_id) is not None:
            return []
        if len(self._open) >= self._commands_max:
            raise QueueFull(
                f"{self._commands_max} commands are unanswered: wait, or raise commands_max",
                field="commands_max",
                retry_after_s=_FULL_RETRY_S,
            )
        return self._write(replace(command, status=CommandStatus.CREATED, created_at_ms=now_ms), now_ms)

    def to_send(self, node_id: NodeId, now_ms: int) -> ToSend:
        """Return what belongs on the reply to a heartbeat: again each time, until the node acknowledges it."""
        effects: list[Effect] = []
        waiting = [
            command
            for command in self._open.values()
            if command.node_id == node_id
            and command.status is not CommandStatus.ACKED
            and now_ms <= command.deadline_ms
        ]
        for command in waiting:
            effects += self._step(command, CommandSignal.SENT, now_ms)
        return ToSend(tuple(self._open[command.command_id] for command in waiting), effects)

    def acked(self, command_id: CommandId, now_ms: int) -> list[Effect]:
        return self._answered(command_id, CommandSignal.ACKED, now_ms)

    def finished(
        self, command_id: CommandId, now_ms: int, *, result: Any = None, error: str | None = None
    ) -> list[Effect]:
        """End a command with its result, or with the error that kept it from one."""
        signal = CommandSignal.DONE if error is None else CommandSignal.FAILED
        return self._answered(command_id, signal, now_ms, result=result, error=error)

    def tick(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for command in [command for command in self._open.values() if command.deadline_ms < now_ms]:
            error = f"no {'result' if command.status is CommandStatus.ACKED else 'answer'} by its deadline"
            effects += self._step(command, CommandSignal.EXPIRED, now_ms, error=error)
        return effects

    def _answered(self, command_id: CommandId, signal: CommandSignal, now_ms: int, **outcome: Any) -> list[Effect]:
        command = self._open.get(command_id)
        if command is not None:
            return self._step(command, signal, now_ms, **outcome)
        if command_id in self._ended:
            return []  # an answer that comes twice or too late changes nothing
        raise CommandNotFound(f"no command {command_id!r} is known", field="command_id")

    def _step(self, command: Command, signal: CommandSignal, now_ms: int, **outcome: Any) -> list[Effect]:
        status = next_status(command.command_id, command.status, signal)
        if status is command.status:
            return []
        ended = {"ended_at_ms": now_ms} if status in ENDED else {}
        return self._write(replace(command, status=status, **ended | outcome), now_ms)

    def _write(self, command: Command, now_ms: int) -> list[Effect]:
        if command.status in ENDED:
            self._open.pop(command.command_id, None)
            self._ended[command.command_id] = command
        else:
            self._open[command.command_id] = command
        while self._ended and len(self._open) + len(self._ended) > self._commands_max:
            del self._ended[next(iter(self._ended))]
        data = {"node_id": command.node_id, "command_id": command.command_id, "command": command.command}
        why = {"reason": command.error} if command.error else {}
        told = Event(kind=f"command_{command.status}", key=command.node_id, at_ms=now_ms, data=data | why)
        return [SaveCommand(command), Emit(told)]
