"""Between agent and control plane."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

from muster.domain.file import FileRef
from muster.domain.standing import BrokerStanding
from muster.ids import JobId
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
)


class NodeLink(Protocol):
    """An agent's way to the control plane. Raises StoreUnavailable or UpstreamFailed when it cannot be reached."""

    async def register(self, message: Registration) -> RegistrationReply: ...
    async def heartbeat(self, message: Heartbeat) -> HeartbeatReply: ...
    async def report_events(self, message: AgentEvents) -> None: ...
    async def deregister(self, message: Deregistration) -> None: ...
    async def next_commands(self, message: CommandPoll) -> CommandBatch:
        """Return at once when there are some, else after `wait_s` at most."""
        ...

    async def report_commands(self, message: CommandReports) -> None: ...
    async def find_artifacts(self, message: ArtifactQuery) -> ArtifactReply: ...
    async def tell_logs(self, message: LogChunk) -> LogChunkReply: ...
    async def join(self, message: Join) -> Joined:
        """Exchange a join token for one of the node's own; Forbidden where that is not what was shown."""
        ...


class BrokerProbe(Protocol):
    """How the broker stands, whatever that is: a broker that is away is an answer."""

    async def standing(self) -> BrokerStanding: ...


class JobLink(Protocol):
    """A worker's way to the queue."""

    async def open_session(self, message: OpenSession) -> SessionReply: ...
    async def claim(self, message: ClaimRequest) -> ClaimReply: ...
    async def renew(self, message: RenewRequest) -> RenewReply: ...
    async def report_progress(self, message: ProgressReports) -> RenewReply: ...
    async def close_session(self, message: CloseSession) -> None: ...


class FileLink(Protocol):
    """An attempt's way to the files of the fleet: it writes its own, and reads those that its submitter may."""

    async def put_file(self, job_id: JobId, attempt: int, name: str, data: AsyncIterable[bytes]) -> FileRef:
        """Raise Conflict when the attempt is not the running one; the name is kept whole, once."""
        ...

    def get_file(self, job_id: JobId, attempt: int, url: str) -> AsyncIterator[bytes]: ...
