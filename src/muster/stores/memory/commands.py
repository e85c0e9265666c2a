from collections.abc import Sequence

from muster.commands.lifecycle import ENDED, standing
from muster.domain.command import Command
from muster.ids import CommandId


class MemoryCommands:
    """A CommandStore."""

    def __init__(self, ended_max: int) -> None:
        self._ended_max = ended_max
        self._commands: dict[CommandId, Command] = {}

    async def load(self) -> list[Command]:
        return sorted(self._commands.values(), key=lambda command: (command.created_at_ms, command.command_id))

    async def save(self, commands: Sequence[Command]) -> None:
        for command in commands:
            known = self._commands.get(command.command_id)
            if known is None or standing(command) > standing(known):
                self._commands[command.command_id] = command
        ended = sorted(
            (command.ended_at_ms or 0, command.command_id)
            for command in self._commands.values()
            if command.status in ENDED
        )
        for _, command_id in ended[: max(0, len(ended) - self._ended_max)]:
            del self._commands[command_id]
