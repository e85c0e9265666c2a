"""What a caller of the control plane may say over a link: its own node's messages, or only that it joins."""

from collections.abc import Callable, Iterator
from typing import Protocol

from muster.access.book import Caller
from muster.access.roles import Right
from muster.links.calls import Call, CallingLink, M, R
from muster.ports import JobLink, NodeLink
from muster.wire import Heartbeat, HeartbeatReply, Join, Joined
from muster.wire.packing import unpacked


class Joining(Protocol):
    async def join(self, caller: Caller, message: Join) -> Joined: ...


class GuardedLink(CallingLink):
    """Stands before the real thing. `admit` is asked for every call: what was revoked meanwhile counts no more."""

    def __init__(self, admit: Callable[[Right], Caller], nodes: NodeLink, jobs: JobLink, joining: Joining) -> None:
        self._admit = admit
        self._nodes = nodes
        self._jobs = jobs
        self._joining = joining

    async def join(self, message: Join) -> Joined:
        return await self._joining.join(self._admit(Right.JOIN), message)

    async def heartbeat(self, message: Heartbeat) -> HeartbeatReply:
        return await super().heartbeat(unpacked(message))  # else its workers would not be seen here

    async def _call(self, call: Call[M, R], message: M) -> R:
        caller = self._admit(Right.SPEAK)
        if caller.node_id is not None:
            for node_id in _named_in(message):
                caller.check_speaks_for(node_id)
        return await call.deliver(self._nodes, self._jobs, message)


def _named_in(message: object) -> Iterator[str]:
    """Tell the nodes that a message speaks of. One that names a session only, which nobody else knows, tells none."""
    if (facts := getattr(message, "facts", None)) is not None:
        yield facts.node_id
    if (node_id := getattr(message, "node_id", None)) is not None:
        yield node_id
    for worker in (message, *getattr(message, "workers", ())):
        if (worker_id := getattr(worker, "worker_id", None)) is not None:
            yield worker_id.rpartition("-worker-")[0]
