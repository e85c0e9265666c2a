"""Letters to nodes: what corrects them, and their commands, again until they are acknowledged."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import structlog

from muster.domain.node import Node
from muster.errors import MusterError, UpstreamFailed
from muster.ids import NodeId
from muster.links.amqp.messages import Letter
from muster.links.amqp.topology import COMMANDS, node_key
from muster.ports import NodeLink
from muster.wire import CommandPoll, HeartbeatReply, encode

log = structlog.get_logger()

LINK = "amqp"

_REPEAT_S = 5.0
_BREATH_EVERY = 100  # nodes looked at in a row


class Roster(Protocol):
    def get(self, node_id: NodeId) -> Node | None: ...
    def nodes(self) -> list[Node]: ...


Send = Callable[[bytes, str, str], Awaitable[bool]]  # body, exchange, key; UpstreamFailed when the broker is away


class Post:
    """A Lifecycle. What is not delivered is not kept: heartbeats and open commands ask for it again."""

    def __init__(self, send: Send, nodes: NodeLink, roster: Roster, *, repeat_s: float = _REPEAT_S) -> None:
        self._send = send
        self._nodes = nodes
        self._roster = roster
        self._repeat_s = repeat_s
        self._replies: dict[tuple[NodeId, str], HeartbeatReply] = {}
        self._due: dict[NodeId, None] = {}  # nodes for which there may be commands
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="post")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def correct(self, node_id: NodeId, boot_id: str, reply: HeartbeatReply) -> None:
        self._replies[node_id, boot_id] = reply
        self._news.set()

    def look(self, node_id: NodeId) -> None:
        """Send the node its commands now."""
        self._due[node_id] = None
        self._news.set()

    def look_at_all(self) -> None:
        self._due = dict.fromkeys(node.node_id for node in self._roster.nodes() if node.link == LINK)
        self._news.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        repeat_at_s = loop.time() + self._repeat_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(repeat_at_s):
                    await self._news.wait()
            if loop.time() >= repeat_at_s:  # also while there is always something else to write
                self.look_at_all()
                repeat_at_s = loop.time() + self._repeat_s
            self._news.clear()
            try:
                await self._deliver()
            except UpstreamFailed as error:
                log.debug("letters_not_sent", error=error.message)
            except Exception:
                log.exception("post_fault")  # the next round must come
            await asyncio.sleep(0)  # others have their turn, however much there is to write

    async def _deliver(self) -> None:
        replies, self._replies = self._replies, {}
        due, self._due = self._due, {}
        for (node_id, boot_id), reply in replies.items():
            await self._send_letter(node_id, Letter(boot_id=boot_id, reply=reply))
        await self._send_commands(due)

    async def _send_commands(self, node_ids: Iterable[NodeId]) -> None:
        for count, node_id in enumerate(node_ids, start=1):
            node = self._roster.get(node_id)
            if node is None or node.link != LINK:
                continue  # it asks for itself
            try:
                batch = await self._nodes.next_commands(CommandPoll(node_id=node_id, boot_id=node.boot_id))
            except MusterError as error:
                log.debug("commands_not_read", node_id=node_id, error=error.message)
                continue
            if batch.commands or batch.log_asks:
                await self._send_letter(node_id, Letter(boot_id=node.boot_id, batch=batch))
            if count % _BREATH_EVERY == 0:
                await asyncio.sleep(0)

    async def _send_letter(self, node_id: NodeId, letter: Letter) -> None:
        if not await self._send(encode(letter), COMMANDS, node_key(node_id)):
            log.debug("node_not_at_the_broker", node_id=node_id)
