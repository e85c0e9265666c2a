"""The book of commands: issued once, sent until acknowledged, answered once or expired.

Pure as the book of nodes is: time comes in, effects go out.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from muster.commands.lifecycle import ENDED, CommandSignal, next_status, standing
from muster.domain.command import Command, CommandStatus
from muster.domain.event import Emit, Event
from muster.domain.job import Progress
from muster.errors import CommandNotFound, QueueFull
from muster.ids import CommandId, NodeId

__all__ = ["CommandBook", "Effect", "Emit", "SaveCommand", "ToSend"]

_FULL_RETRY_S = 10.0
_ANSWERS = frozenset({CommandStatus.ACKED, CommandStatus.DONE, CommandStatus.FAILED})
_TOLD_BYTES_MAX = 1024  # of a result, in the event of its end; the record has it whole


class SaveCommand(Struct, frozen=True):
    command: Command


Effect = SaveCommand | Emit


class ToSend(Struct, frozen=True):
    commands: tuple[Command, ...]
    effects: list[Effect]


class CommandBook:
    """All open commands, `open_max` at most, and the `ended_max` that ended last: a repeated id is known by them."""

    def __init__(self, open_max: int = 10_000, ended_max: int = 5_000) -> None:
        self._open_max = open_max
        self._ended_max = ended_max
        self._commands: dict[CommandId, Command] = {}  # in the order of their issue, as far as it is known
        self._open: defaultdict[NodeId, dict[CommandId, None]] = defaultdict(dict)
        self._open_count = 0
        self._ended: dict[CommandId, None] = {}  # in the order of their end
        self._unanswered: dict[NodeId, CommandId] = {}  # the newest that expired, until the node answers one
        self._groups: defaultdict[CommandId, dict[CommandId, None]] = defaultdict(dict)

    # --- reading -----------------------------------------------------------------------------------------------------

    def get(self, command_id: CommandId) -> Command | None:
        return self._commands.get(command_id)

    def find(self, command_id: CommandId) -> tuple[Command, ...]:
        """Return the command of that id, or all of the group of that id; nothing when it is not known."""
        command = self._commands.get(command_id)
        if command is not None:
            return (command,)
        return tuple(self._commands[member] for member in self._groups.get(command_id, ()))

    def newest(self, node_id: NodeId | None = None, status: CommandStatus | None = None) -> list[Command]:
        """Return the newest first."""
        found = [
            command
            for command in self._commands.values()
            if node_id in {None, command.node_id} and status in {None, command.status}
        ]
        return sorted(found, key=lambda command: (command.created_at_ms, command.command_id), reverse=True)

    def counts(self) -> Counter[CommandStatus]:
        return Counter(command.status for command in self._commands.values())

    def unanswered(self, node_id: NodeId) -> Command | None:
        """Return the newest command that expired, if the node has answered none since."""
        command_id = self._unanswered.get(node_id)
        return None if command_id is None else self._commands.get(command_id)

    # --- what people and control planes say --------------------------------------------------------------------------

    def check_room(self, more: int) -> None:
        if self._open_count + more > self._open_max:
            raise QueueFull(
                f"{self._open_count} commands are unanswered and {more} more would be over the limit of "
                f"{self._open_max}: wait until they are answered or expire, or raise commands_max",
                field="commands_max",
                retry_after_s=_FULL_RETRY_S,
            )

    def issue(self, command: Command, now_ms: int) -> list[Effect]:
        """Take a command up; the same id again changes nothing."""
        if command.command_id in self._commands:
            return []
        self.check_room(1)
        return self._write(replace(command, status=CommandStatus.CREATED, created_at_ms=now_ms), now_ms)

    def merge(self, command: Command) -> bool:
        """Take over how a command stands in another book, or in the store; tell whether that was news."""
        known = self._commands.get(command.command_id)
        if known is not None and standing(command) <= standing(known):
            return False
        self._put(command)
        return True

    # --- what nodes say ----------------------------------------------------------------------------------------------

    def to_send(self, node_id: NodeId, now_ms: int) -> ToSend:
        """Return what the node is to be told: again each time, until it acknowledges it."""
        effects: list[Effect] = []
        waiting = [
            command
            for command in self._open_of(node_id)
            if command.status is not CommandStatus.ACKED and now_ms <= command.deadline_ms
        ]
        for command in waiting:
            effects += self._step(command, CommandSignal.SENT, now_ms)
        return ToSend(tuple(self._commands[command.command_id] for command in waiting), effects)

    def acked(self, command_id: CommandId, now_ms: int, progress: Progress | None = None) -> list[Effect]:
        """Note that the node has it and, from then on, how far it is."""
        command = self._answered(command_id)
        if command is None:
            return []
        effects = self._step(command, CommandSignal.ACKED, now_ms)
        if progress is not None:
            command = replace(self._commands[command_id], progress=replace(progress, at_ms=now_ms))
            self._put(command)
            effects.append(SaveCommand(command))
        return effects

    def finished(
        self, command_id: CommandId, now_ms: int, *, result: Any = None, error: str | None = None
    ) -> list[Effect]:
        """End a command with its result, or with the error that kept it from one."""
        command = self._answered(command_id)
        if command is None:
            return []
        signal = CommandSignal.DONE if error is None else CommandSignal.FAILED
        return self._step(command, signal, now_ms, result=result, error=error)

    # --- what silence says -------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        overdue = [
            command
            for node_id in list(self._open)
            for command in self._open_of(node_id)
            if command.deadline_ms < now_ms
        ]
        for command in overdue:
            error = f"no {'result' if command.status is CommandStatus.ACKED else 'answer'} by its deadline"
            effects += self._step(command, CommandSignal.EXPIRED, now_ms, error=error)
        return effects

    # --- writing -----------------------------------------------------------------------------------------------------

    def _open_of(self, node_id: NodeId) -> Sequence[Command]:
        return [self._commands[command_id] for command_id in self._open.get(node_id, ())]

    def _answered(self, command_id: CommandId) -> Command | None:
        """Return the open command that an answer is for; None for an answer that comes twice or too late."""
        command = self._commands.get(command_id)
        if command is None:
            raise CommandNotFound(f"no command {command_id!r} is known", field="command_id")
        return None if command.status in ENDED else command

    def _step(self, command: Command, signal: CommandSignal, now_ms: int, **outcome: Any) -> list[Effect]:
        status = next_status(command.command_id, command.status, signal)
        if status is command.status:
            return []
        ended = {"ended_at_ms": now_ms} if status in ENDED else {}
        return self._write(replace(command, status=status, **ended | outcome), now_ms)

    def _write(self, command: Command, now_ms: int) -> list[Effect]:
        self._put(command)
        return [SaveCommand(command), Emit(_told(command, now_ms))]

    def _put(self, command: Command) -> None:
        command_id, node_id = command.command_id, command.node_id
        was_open = command_id in self._open.get(node_id, ())
        self._commands[command_id] = command
        if command.status is CommandStatus.EXPIRED:
            self._unanswered[node_id] = command_id
        elif command.status in _ANSWERS:
            self._unanswered.pop(node_id, None)
        if command.group_id is not None:
            self._groups[command.group_id][command_id] = None
        if command.status not in ENDED:
            self._open[node_id][command_id] = None
            self._open_count += not was_open
            return
        if was_open:
            self._open_count -= 1
            del self._open[node_id][command_id]
            if not self._open[node_id]:
                del self._open[node_id]
        self._ended[command_id] = None
        self._forget_oldest(keep=self._ended_max)

    def _forget_oldest(self, keep: int) -> None:
        while len(self._ended) > keep:
            command_id = next(iter(self._ended))
            del self._ended[command_id]
            command = self._commands.pop(command_id)
            if self._unanswered.get(command.node_id) == command_id:
                del self._unanswered[command.node_id]
            if command.group_id is not None:
                del self._groups[command.group_id][command_id]
                if not self._groups[command.group_id]:
                    del self._groups[command.group_id]


def _told(command: Command, now_ms: int) -> Event:
    """Return the entry for the log, in which people look up who had what done."""
    data: dict[str, Any] = {
        "node_id": command.node_id,
        "command_id": command.command_id,
        "command": command.command,
    }
    if command.status is CommandStatus.CREATED:
        data |= {"by": command.issued_by, "args": command.args}
    if command.status in ENDED:
        data |= {"by": command.issued_by, "reason": command.error, "result": _in_brief(command.result)}
    data = {name: value for name, value in data.items() if value not in (None, {})}
    return Event(kind=f"command_{command.status}", key=command.node_id, at_ms=now_ms, data=data)


def _in_brief(result: Any) -> Any:
    size_bytes = len(msgspec.json.encode(result))
    return result if size_bytes <= _TOLD_BYTES_MAX else {"size_bytes": size_bytes}
