from collections.abc import Sequence
from typing import Any

import msgspec

from muster.commands.lifecycle import standing
from muster.domain.command import Command
from muster.stores.valkey.server import Server

_COMMANDS_PER_CALL = 200

_command = msgspec.json.Decoder(Command)


class ValkeyCommands:
    """A CommandStore: one hash, command id -> how it stands and its record; what ended is in a line by its end."""

    def __init__(self, server: Server, *, ended_max: int) -> None:
        self._server = server
        self._key = server.key("commands")
        self._ended_max = ended_max

    async def load(self) -> list[Command]:
        kept = await self._server.execute("HVALS", self._key)
        found = [_command.decode(entry.partition(b"|")[2]) for entry in kept]
        return sorted(found, key=lambda command: (command.created_at_ms, command.command_id))

    async def save(self, commands: Sequence[Command]) -> None:
        for start in range(0, len(commands), _COMMANDS_PER_CALL):
            args: list[Any] = []
            for command in commands[start : start + _COMMANDS_PER_CALL]:
                args += (command.command_id, standing(command), command.ended_at_ms or 0, msgspec.json.encode(command))
            await self._server.run("save_commands", self._ended_max, *args)
