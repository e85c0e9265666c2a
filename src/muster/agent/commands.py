"""Commands that come with the replies to heartbeats: each is carried out once, its result is told as an event."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import structlog

from muster.agent.outbox import Outbox
from muster.domain.command import Command
from muster.errors import CommandNotFound, MusterError
from muster.ids import CommandId

log = structlog.get_logger()

Action = Callable[[dict[str, Any]], Awaitable[Any]]

KNOWN_MAX = 1000


class CommandDesk:
    def __init__(self, actions: Mapping[str, Action], outbox: Outbox) -> None:
        self._actions = actions
        self._outbox = outbox
        self._known: OrderedDict[CommandId, None] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()
        self._done: list[CommandId] = []

    def take(self, commands: Iterable[Command]) -> None:
        """Begin those that are new; an id that was seen before changes nothing."""
        for command in commands:
            if command.command_id in self._known:
                continue
            self._known[command.command_id] = None
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
            task = asyncio.create_task(self._carry_out(command), name=f"command {command.command}")
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    @property
    def done(self) -> tuple[CommandId, ...]:
        """Commands that ended and are not acknowledged yet."""
        return tuple(self._done)

    def acknowledged(self, command_ids: Iterable[CommandId]) -> None:
        for command_id in command_ids:
            self._done.remove(command_id)

    async def stop(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _carry_out(self, command: Command) -> None:
        about = {"command_id": command.command_id, "command": command.command}
        log.info("command_received", **about, args=command.args)
        action: Action = self._actions.get(command.command) or self._unknown
        try:
            result = await action(command.args)
        except MusterError as error:
            self._outbox.add("command_failed", **about, error=error.message)
        except Exception as error:
            log.exception("command_failed", **about)
            self._outbox.add("command_failed", **about, error=str(error))
        else:
            self._outbox.add("command_done", **about, result=result)
        self._done.append(command.command_id)

    async def _unknown(self, _: dict[str, Any]) -> None:
        raise CommandNotFound(f"unknown command; this agent knows {', '.join(sorted(self._actions))}")
