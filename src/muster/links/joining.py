"""The link of an agent that was given a join token, or has exchanged one for its own."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from muster.errors import Unauthorized
from muster.ids import NodeId
from muster.links.calls import Call, CallingLink, M, R
from muster.ports import JobLink, Lifecycle, NodeLink
from muster.wire import Join

log = structlog.get_logger()


class OpenedLink(NodeLink, JobLink, Lifecycle, Protocol):
    """Any link that shows one token."""


class NodeKey(Protocol):
    """The secret of this node and, once it has joined, the token that is made of it."""

    @property
    def token(self) -> str | None: ...
    def new_secret(self) -> str:
        """Return the digest of a secret that is kept already; an unused one is taken again."""
        ...

    def joined(self, token_id: str) -> str:
        """Return the token, once it is kept."""
        ...

    def forget(self) -> None: ...


class JoiningLink(CallingLink):
    """A Lifecycle. Joins before its first call, and again when the node's own token counts no more.

    `open_link` makes a link that shows a token; without a `join_token` there is only the node's own.
    """

    def __init__(
        self,
        open_link: Callable[[str], OpenedLink],
        node_id: NodeId,
        key: NodeKey,
        join_token: str | None,
        *,
        patience_s: float = 10.0,
    ) -> None:
        self._open_link = open_link
        self._node_id = node_id
        self._key = key
        self._join_token = join_token
        self._patience_s = patience_s
        self._joining = asyncio.Lock()
        self._link: OpenedLink | None = None
        self._refused_since_s: float | None = None

    async def start(self) -> None:
        if self._key.token is not None:
            await self._show(self._key.token)

    async def stop(self) -> None:
        if self._link is not None:
            await self._link.stop()
            self._link = None

    async def _call(self, call: Call[M, R], message: M) -> R:
        link = self._link or await self._joined()
        try:
            reply = await call.deliver(link, link, message)
        except Unauthorized as error:
            if self._join_token is None or not self._is_refused_for_good():
                raise
            log.warning("own_token_refused", node_id=self._node_id, error=error.message)
            link = await self._joined(instead_of=link)
            return await call.deliver(link, link, message)
        self._refused_since_s = None
        return reply

    def _is_refused_for_good(self) -> bool:
        """Wait a while: another control plane may not have heard yet of a node that has just joined."""
        now_s = asyncio.get_running_loop().time()
        if self._refused_since_s is None:
            self._refused_since_s = now_s
        return now_s - self._refused_since_s >= self._patience_s

    async def _joined(self, instead_of: OpenedLink | None = None) -> OpenedLink:
        """Return a link that shows the node's own token; of many calls that need it at once, the first gets it."""
        async with self._joining:
            if self._link is not None and self._link is not instead_of:
                return self._link
            if instead_of is not None:
                await self.stop()
                self._key.forget()
            if self._join_token is None:
                raise Unauthorized("this node has no token: set MUSTER_TOKEN to one that `muster token create` made")
            link = self._open_link(self._join_token)
            try:
                await link.start()
                reply = await link.join(Join(node_id=self._node_id, secret_sha256=self._key.new_secret()))
            finally:
                await link.stop()
            own = self._key.joined(reply.token_id)
            self._refused_since_s = None
            log.info("joined", node_id=self._node_id, token_id=reply.token_id)
            return await self._show(own)

    async def _show(self, token: str) -> OpenedLink:
        link = self._open_link(token)
        await link.start()
        self._link = link
        return link
