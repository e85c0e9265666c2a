"""Every call of an agent, once: its name on the wire, its messages, and what it reaches on the control plane.

Both ends of every link go by this table, so they cannot drift apart.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from muster.errors import NotFound
from muster.ports import JobLink, NodeLink
from muster.wire import (
    AgentEvents,
    ArtifactQuery,
    ArtifactReply,
    ClaimReply,
    ClaimRequest,
    CloseSession,
    CommandBatch,
    CommandPoll,
    CommandReports,
    Deregistration,
    Heartbeat,
    HeartbeatReply,
    Join,
    Joined,
    LogChunk,
    LogChunkReply,
    OpenSession,
    ProgressReports,
    Registration,
    RegistrationReply,
    RenewReply,
    RenewRequest,
    SessionReply,
    decode,
    encode,
)

M = TypeVar("M")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Call(Generic[M, R]):
    name: str
    message: type[M]
    reply: type[R]
    deliver: Callable[[NodeLink, JobLink, M], Awaitable[R]]


REGISTER = Call("register", Registration, RegistrationReply, lambda nodes, _, message: nodes.register(message))
HEARTBEAT = Call("heartbeat", Heartbeat, HeartbeatReply, lambda nodes, _, message: nodes.heartbeat(message))
EVENTS = Call("events", AgentEvents, type(None), lambda nodes, _, message: nodes.report_events(message))
DEREGISTER = Call("deregister", Deregistration, type(None), lambda nodes, _, message: nodes.deregister(message))
COMMANDS = Call("commands", CommandPoll, CommandBatch, lambda nodes, _, message: nodes.next_commands(message))
REPORTS = Call("reports", CommandReports, type(None), lambda nodes, _, message: nodes.report_commands(message))
LOGS = Call("logs", LogChunk, LogChunkReply, lambda nodes, _, message: nodes.tell_logs(message))
ARTIFACTS = Call("artifacts", ArtifactQuery, ArtifactReply, lambda nodes, _, message: nodes.find_artifacts(message))
JOIN = Call("join", Join, Joined, lambda nodes, _, message: nodes.join(message))
SESSION = Call("session", OpenSession, SessionReply, lambda _, jobs, message: jobs.open_session(message))
CLAIM = Call("claim", ClaimRequest, ClaimReply, lambda _, jobs, message: jobs.claim(message))
RENEW = Call("renew", RenewRequest, RenewReply, lambda _, jobs, message: jobs.renew(message))
PROGRESS = Call("progress", ProgressReports, RenewReply, lambda _, jobs, message: jobs.report_progress(message))
CLOSE = Call("close", CloseSession, type(None), lambda _, jobs, message: jobs.close_session(message))

CALLS: dict[str, Call[Any, Any]] = {
    call.name: call
    for call in (
        JOIN, REGISTER, HEARTBEAT, EVENTS, DEREGISTER, COMMANDS, REPORTS, LOGS, ARTIFACTS,
        SESSION, CLAIM, RENEW, PROGRESS, CLOSE,
    )
}  # fmt: skip


def call_named(name: str) -> Call[Any, Any]:
    call = CALLS.get(name)
    if call is None:
        raise NotFound(f"no call {name!r}; an agent's calls are {', '.join(CALLS)}")
    return call


async def answer(name: str, body: bytes, nodes: NodeLink, jobs: JobLink) -> bytes | None:
    """Decode, deliver, encode; None where the call has no reply. NotFound or InvalidInput when it does not fit."""
    call = call_named(name)
    reply = await call.deliver(nodes, jobs, decode(body, call.message))
    return None if reply is None else encode(reply)


def wait_s_of(message: object) -> float:
    """Return how long the reply may take because there is nothing to say yet."""
    return message.wait_s if isinstance(message, ClaimRequest | CommandPoll) else 0.0


class CallingLink(ABC):
    """A NodeLink and JobLink; how a call reaches the control plane is the one thing left to say."""

    @abstractmethod
    async def _call(self, call: Call[M, R], message: M) -> R: ...

    async def register(self, message: Registration) -> RegistrationReply:
        return await self._call(REGISTER, message)

    async def heartbeat(self, message: Heartbeat) -> HeartbeatReply:
        return await self._call(HEARTBEAT, message)

    async def report_events(self, message: AgentEvents) -> None:
        await self._call(EVENTS, message)

    async def deregister(self, message: Deregistration) -> None:
        await self._call(DEREGISTER, message)

    async def next_commands(self, message: CommandPoll) -> CommandBatch:
        return await self._call(COMMANDS, message)

    async def report_commands(self, message: CommandReports) -> None:
        await self._call(REPORTS, message)

    async def tell_logs(self, message: LogChunk) -> LogChunkReply:
        return await self._call(LOGS, message)

    async def find_artifacts(self, message: ArtifactQuery) -> ArtifactReply:
        return await self._call(ARTIFACTS, message)

    async def join(self, message: Join) -> Joined:
        return await self._call(JOIN, message)

    async def open_session(self, message: OpenSession) -> SessionReply:
        return await self._call(SESSION, message)

    async def claim(self, message: ClaimRequest) -> ClaimReply:
        return await self._call(CLAIM, message)

    async def renew(self, message: RenewRequest) -> RenewReply:
        return await self._call(RENEW, message)

    async def report_progress(self, message: ProgressReports) -> RenewReply:
        return await self._call(PROGRESS, message)

    async def close_session(self, message: CloseSession) -> None:
        await self._call(CLOSE, message)
