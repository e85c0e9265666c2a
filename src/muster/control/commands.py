"""Commands on their way: issued here or on another control plane, handed to the nodes that ask, answered, expired.

Every control plane has all commands in its book: a change is saved, then published, and what others publish is merged.
So a node's commands reach it whichever control plane took them, and whichever the node talks to.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from msgspec import Struct

from muster.clock import Clock, Rng
from muster.commands.book import CommandBook, Effect, Emit, SaveCommand
from muster.commands.lifecycle import ENDED
from muster.commands.order import Order, commands_of, targets
from muster.control.fleet.fleet import Fleet
from muster.control.recorder import Recorder
from muster.domain.command import Command, CommandStatus
from muster.domain.node import Node
from muster.errors import CommandNotFound, InvalidInput, MusterError
from muster.ids import CommandId, NodeId, check_node_id, new_id
from muster.ports import Bus, CommandStore
from muster.rounds import Rounds
from muster.wire import CommandBatch, CommandPoll, CommandReport, CommandReports, LogAsk, decode, encode

log = structlog.get_logger()

COMMANDS_TOPIC = "commands"

_WAIT_S_MAX = 60.0
_BUS_RETRY_S = 0.5
_PER_WRITE = 200
_REPORTS_MAX = 1_000
_RESULT_BYTES_MAX = 262_144
_DRAINS = {"drain": True, "resume": False}

OnIssued = Callable[[Command], None]
AsksFor = Callable[[NodeId], tuple[LogAsk, ...]]
First = Callable[[dict[str, Any]], Awaitable[object]]


class Issued(Struct, frozen=True, kw_only=True):
    """`created` is false where the id was known: then nothing was changed."""

    command_id: CommandId
    commands: tuple[Command, ...]
    created: bool


class CommandService:
    """A Lifecycle."""

    def __init__(
        self,
        book: CommandBook,
        store: CommandStore,
        bus: Bus,
        fleet: Fleet,
        recorder: Recorder,
        clock: Clock,
        rng: Rng,
        first: Mapping[str, First] | None = None,
    ) -> None:
        """`first` is, by command, what this side does with the arguments before any node is told."""
        self._book = book
        self._store = store
        self._bus = bus
        self._fleet = fleet
        self._recorder = recorder
        self._clock = clock
        self._rng = rng
        self._first = first or {}
        self._unwritten: dict[CommandId, Command] = {}
        self._writing = asyncio.Lock()
        self._issuing = asyncio.Lock()
        self._waiting: defaultdict[NodeId, set[asyncio.Event]] = defaultdict(set)
        self._listeners: list[OnIssued] = []
        self._log_asks: AsksFor = lambda _: ()
        self._rounds = Rounds()
        self._closing = False

    async def start(self) -> None:
        # Without the others' changes a node may wait for its commands until their deadline.
        self._rounds.go("command_updates", self._follow, _BUS_RETRY_S)

    async def load(self) -> None:
        """Take up what an earlier life has left."""
        self._merge(await self._store.load())

    async def stop(self) -> None:
        """Let go of everybody who waits for commands: they ask again, and find us gone or back."""
        self._closing = True
        for node_id in list(self._waiting):
            self.wake(node_id)
        await self._rounds.stop()

    def on_issued(self, listener: OnIssued) -> None:
        """Be told each command that is issued here, once it is kept: for a link that pushes instead of being asked."""
        self._listeners.append(listener)

    def send_along(self, log_asks: AsksFor) -> None:
        """Let what is asked of a node's logs go the way of its commands."""
        self._log_asks = log_asks

    def wake(self, node_id: NodeId) -> None:
        """Let a node look whether there is something for it."""
        for news in self._waiting.get(node_id, ()):
            news.set()

    # --- for people --------------------------------------------------------------------------------------------------

    async def issue(self, order: Order, *, done_here: bool = False) -> Issued:
        """Address, keep and tell the commands of an order; of an id that is known, the commands as they stand.

        Raises NodeNotFound, NodeNotConnected, QueueFull or what has to be done first raises: then nothing was issued.
        `done_here`: what has to be done first has been.
        """
        async with self._issuing:  # one after the other, so that an id that comes twice at once is known as well
            return await self._issue(order, done_here=done_here)

    async def _issue(self, order: Order, *, done_here: bool) -> Issued:
        now_ms = self._clock.now_ms()
        command_id = order.command_id or CommandId(new_id("cmd", now_ms, self._rng))
        known = self._book.find(command_id)
        if known:
            return Issued(command_id=command_id, commands=known, created=False)
        commands = commands_of(order, command_id, targets(order, self._fleet.nodes()), now_ms)
        self._book.check_room(len(commands))
        if order.command in self._first and not done_here:
            await self._first[order.command](order.args)
        await self._store.save(commands)  # first: what was answered with an error must not be carried out later
        for command in commands:
            self._carry_out(self._book.issue(command, now_ms))
            self._mark_draining(command)
        try:
            await self._write()
            if order.command in _DRAINS:
                await self._recorder.flush()  # before anybody hears that it is done: it holds after we are killed
        except MusterError as error:
            log.warning("commands_not_published", command_id=command_id, error=error.message)
        for command in commands:
            self.wake(command.node_id)
            for listener in self._listeners:
                listener(command)
        return Issued(command_id=command_id, commands=self.find(command_id), created=True)

    def find(self, command_id: CommandId) -> tuple[Command, ...]:
        """Return the command of that id, or those of the group of that id."""
        found = self._book.find(command_id)
        if not found:
            raise CommandNotFound(f"no command {command_id!r} is known", field="command_id")
        return found

    def counts(self) -> Counter[CommandStatus]:
        return self._book.counts()

    def unanswered(self, node: Node) -> Command | None:
        """Return the command that expired for want of an answer, if the node has answered none since."""
        command = self._book.unanswered(node.node_id)
        return command if command is not None and command.boot_id in {"", node.boot_id} else None

    def newest(self, node_id: NodeId | None = None, status: CommandStatus | None = None) -> list[Command]:
        return self._book.newest(node_id, status)

    # --- for nodes ---------------------------------------------------------------------------------------------------

    async def next_commands(self, message: CommandPoll) -> CommandBatch:
        """Return what the node has not acknowledged, at once or as soon as there is some within `wait_s`."""
        node_id = check_node_id(message.node_id)
        news = asyncio.Event()
        self._waiting[node_id].add(news)  # before looking, so that nothing falls between the look and the wait
        try:
            batch = await self._to_send(message)
            if batch.commands or batch.log_asks or message.wait_s <= 0 or self._closing:
                return batch
            async with asyncio.timeout(min(message.wait_s, _WAIT_S_MAX)):
                await news.wait()
        except TimeoutError:
            return batch
        finally:
            self._waiting[node_id].discard(news)
            if not self._waiting[node_id]:
                del self._waiting[node_id]
        return await self._to_send(message)

    async def report(self, message: CommandReports) -> None:
        """Take in what a node says of its commands; once this returns it is kept. All of it may come again."""
        check_node_id(message.node_id)
        if len(message.reports) > _REPORTS_MAX:
            raise InvalidInput(f"at most {_REPORTS_MAX} reports at a time", field="reports")
        for report in message.reports:
            if report.status not in {CommandStatus.ACKED, CommandStatus.DONE, CommandStatus.FAILED}:
                raise InvalidInput(f"status must be acked, done or failed, got {report.status.value!r}", field="status")
        for report in message.reports:
            command = self._book.get(report.command_id)
            if command is None or command.node_id != message.node_id:
                log.warning("report_of_unknown_command", node_id=message.node_id, command_id=report.command_id)
            else:
                self._carry_out(self._reported(report))
        await self._write()

    # --- for the sweep -----------------------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Expire what was not answered in time; on one control plane only, the others hear of it."""
        self._carry_out(self._book.tick(self._clock.now_ms()))
        await self._write()

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _to_send(self, message: CommandPoll) -> CommandBatch:
        now_ms = self._clock.now_ms()
        node = self._fleet.book.get(message.node_id)
        if node is not None and message.boot_id in node.retired_boot_ids:
            return CommandBatch(now_ms=now_ms)  # the words of an earlier life, late: its successor is to be told
        sending = self._book.to_send(message.node_id, now_ms)
        self._carry_out(sending.effects)
        await self._write()
        return CommandBatch(commands=sending.commands, now_ms=now_ms, log_asks=self._log_asks(message.node_id))

    def _reported(self, report: CommandReport) -> list[Effect]:
        now_ms = self._clock.now_ms()
        if report.status is CommandStatus.ACKED:
            return self._book.acked(report.command_id, now_ms, report.progress)
        if report.status is CommandStatus.FAILED:
            error = report.error or "failed for an unknown reason"
            return self._book.finished(report.command_id, now_ms, error=error)
        size_bytes = len(encode(report.result))
        if size_bytes > _RESULT_BYTES_MAX:
            error = f"its result of {size_bytes} bytes is over the limit of {_RESULT_BYTES_MAX}"
            return self._book.finished(report.command_id, now_ms, error=error)
        return self._book.finished(report.command_id, now_ms, result=report.result)

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case SaveCommand(command=command):
                    self._unwritten[command.command_id] = command
                case Emit(event=event):
                    self._recorder.emit([event])

    async def _write(self) -> None:
        """Save and publish what has changed; what the store did not take is written with the next change."""
        if not self._unwritten:
            return
        async with self._writing:
            while batch := list(self._unwritten.values())[:_PER_WRITE]:
                await self._store.save(batch)
                await self._bus.publish(COMMANDS_TOPIC, encode(batch))
                for command in batch:
                    if self._unwritten.get(command.command_id) is command:
                        del self._unwritten[command.command_id]

    def _mark_draining(self, command: Command) -> None:
        """Show and place by it at once; the node hears of it by the command, and by every heartbeat's reply."""
        draining = _DRAINS.get(command.command)
        node = self._fleet.book.get(command.node_id)
        if draining is None or node is None or node.boot_id != command.boot_id:
            return
        self._fleet.carry_out(self._fleet.book.set_draining(command.node_id, self._clock.now_ms(), draining=draining))

    # --- what other control planes say -------------------------------------------------------------------------------

    def _merge(self, commands: Sequence[Command]) -> None:
        for command in commands:
            if self._book.merge(command) and command.status not in ENDED:
                self.wake(command.node_id)

    async def _follow(self) -> None:
        greeter = asyncio.create_task(self._greet(), name="commands-greeting")
        try:
            async for data in self._bus.subscribe(COMMANDS_TOPIC):
                if not greeter.cancelling():
                    # If only our own greeting: from here on nothing is missed, so what was missed before is read once.
                    greeter.cancel()
                    await self.load()
                self._merge(decode(data, list[Command]))
        finally:
            greeter.cancel()

    async def _greet(self) -> None:
        while True:
            with suppress(MusterError):
                await self._bus.publish(COMMANDS_TOPIC, encode([]))
            await asyncio.sleep(_BUS_RETRY_S)
