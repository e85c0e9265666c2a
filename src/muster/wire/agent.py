"""Messages between an agent and the control plane, the same over every link."""

from enum import StrEnum
from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from muster.domain.artifact import NodeArtifacts
from muster.domain.capability import Capability
from muster.domain.command import Command, CommandStatus
from muster.domain.event import Event
from muster.domain.gpu import Gpu
from muster.domain.job import ClaimedJob, JobError, Progress
from muster.domain.node import Health, NodeFacts, Phase, Resources
from muster.domain.process import ProcessFigures
from muster.domain.service import Service
from muster.domain.worker import Worker
from muster.ids import CommandId, JobId, NodeId, SessionId, WorkerId
from muster.wire.logs import LogAsk

# --- joining ---------------------------------------------------------------------------------------------------------


class Join(Struct, frozen=True, kw_only=True):
    """A node makes its own secret and tells a digest of it only: said twice, it is still one node that joins."""

    node_id: NodeId
    secret_sha256: str


class Joined(Struct, frozen=True, kw_only=True):
    """From now on the node shows `mst_<token_id>_<its secret>`."""

    token_id: str


# --- the node: who it is and how it is -------------------------------------------------------------------------------


class Registration(Struct, frozen=True, kw_only=True, omit_defaults=True):
    facts: NodeFacts
    boot_id: str
    heartbeat_interval_s: float
    phase: Phase = Phase.STARTING
    gpus: tuple[Gpu, ...] = ()  # for those who know them before their first heartbeat, as with the services
    services: tuple[Service, ...] = ()


class RegistrationReply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    node_id: NodeId
    next_heartbeat_ms: int


class Table(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Entries that are much alike: fields with one value for all, and columns with one for each; null: not said."""

    rows: Annotated[int, Meta(ge=0, le=4096)] = 0
    same: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, list[Any]] = field(default_factory=dict)


class Packed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What stands in the fields of these names otherwise; `owned` has the place of the GPU of each owner."""

    services: Table = Table()
    processes: Table = Table()
    workers: Table = Table()
    gpus: Table = Table()
    owners: Table = Table()
    owned: list[Annotated[int, Meta(ge=0)]] = field(default_factory=list)


class Heartbeat(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Enough to make the node's record anew. `seq` grows within a boot; late ones from before do not count."""

    facts: NodeFacts
    boot_id: str
    seq: int
    heartbeat_interval_s: float
    status: Health = Health.HEALTHY  # healthy, degraded or unhealthy: the agent's own word
    reason: str | None = None
    phase: Phase = Phase.READY
    resources: Resources = Resources()
    gpus: tuple[Gpu, ...] = ()
    workers: tuple[Worker, ...] = ()
    services: tuple[Service, ...] = ()
    processes: tuple[ProcessFigures, ...] = ()  # of its services: apart, for they change with every heartbeat
    draining: bool = False  # as the agent was told last; the control plane corrects it where it is wrong
    packed: Packed | None = None  # instead of those lists, where they are long: `packing.py`
    artifacts: NodeArtifacts = NodeArtifacts()


class HeartbeatReply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    next_heartbeat_ms: int
    known: bool = True  # false: this heartbeat made the record; a full registration is welcome
    superseded: bool = False  # true: a newer boot of this node id is alive elsewhere
    draining: bool = False
    takes_packed: bool = False  # whether the next one may be packed


class AgentEvents(Struct, frozen=True, kw_only=True):
    node_id: NodeId
    events: tuple[Event, ...]


class Deregistration(Struct, frozen=True, kw_only=True):
    node_id: NodeId
    boot_id: str
    reason: str = "stopped"


# --- commands: asked for by the agent, answered one by one -----------------------------------------------------------


class CommandPoll(Struct, frozen=True, kw_only=True):
    """Ask for what the node is to do; the reply may take `wait_s` when there is nothing."""

    node_id: NodeId
    boot_id: str
    wait_s: float = 0.0


class CommandBatch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Commands that the node has not acknowledged yet. The same one may come again; it is carried out once.

    `now_ms` is the time at the control plane: by it, and not by its own clock, the agent knows how long is left.
    What is asked of its logs comes the same way.
    """

    commands: tuple[Command, ...] = ()
    now_ms: int = 0
    log_asks: tuple[LogAsk, ...] = ()


class CommandReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`status` is acked, done or failed; a report may come twice. While a command runs, acked tells its progress."""

    command_id: CommandId
    status: CommandStatus
    progress: Progress | None = None
    result: Any = None
    error: str | None = None


class CommandReports(Struct, frozen=True, kw_only=True):
    node_id: NodeId
    reports: tuple[CommandReport, ...]


# --- artifacts: who in the fleet has what --------------------------------------------------------------------------


class ArtifactQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who else has the artifact of this name, or digest; and who has those that this node keeps.

    `fetches`: whoever is told that nobody has it will fetch it now, and others may wait for that.
    """

    node_id: NodeId
    name: str = ""
    digest: str | None = None
    fetches: bool = False
    kept: tuple[str, ...] = ()  # digests


class ArtifactHolder(Struct, frozen=True, kw_only=True, omit_defaults=True):
    node_id: NodeId
    url: str
    ticket: str
    digest: str
    size_bytes: int | None = None
    validator: str | None = None


class ArtifactReply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    holders: tuple[ArtifactHolder, ...] = ()
    fetching: tuple[NodeId, ...] = ()  # who will have it soon, and gives it away
    in_pool: tuple[str, ...] = ()  # of `kept`, what another node of the same pool has too
    elsewhere: tuple[str, ...] = ()  # of the rest, what any other node has


# --- jobs: a worker's session and its leases -------------------------------------------------------------------------


class OpenSession(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Open a session, or change the capability of an open one."""

    node_id: NodeId
    worker_id: WorkerId
    session_id: SessionId
    capability: Capability
    slots: int = 1


class SessionReply(Struct, frozen=True, kw_only=True):
    """`result_bytes_max`: a larger result is told as a file; None where the control plane does not say."""

    lease_s: float
    renew_every_s: float
    result_bytes_max: int | None = None


class OutcomeKind(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    RETURNED = "returned"  # the worker stops politely: the attempt does not count


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    job_id: JobId
    attempt: int
    kind: OutcomeKind
    result: Raw | UnsetType = UNSET
    error: JobError | None = None


class ClaimRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One round trip for "these are done, give me more"; the reply may take `wait_s` when nothing waits."""

    session_id: SessionId
    worker_id: WorkerId
    want: int
    done: tuple[Outcome, ...] = ()
    wait_s: float = 0.0


class ClaimReply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    jobs: tuple[ClaimedJob, ...] = ()
    refused: tuple[JobId, ...] = ()  # outcomes that came too late to count
    session_known: bool = True  # false: open the session again, then ask again


class RenewRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`held` are all jobs that the worker runs; others leased to it go back to the queue."""

    session_id: SessionId
    worker_id: WorkerId
    held: tuple[tuple[JobId, int], ...] = ()


class RenewReply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    lost: tuple[JobId, ...] = ()  # cancelled or given to another: stop them, their results no longer count
    session_known: bool = True


class ProgressReport(Struct, frozen=True, kw_only=True):
    job_id: JobId
    attempt: int
    progress: Progress


class ProgressReports(Struct, frozen=True, kw_only=True):
    session_id: SessionId
    reports: tuple[ProgressReport, ...]


class CloseSession(Struct, frozen=True, kw_only=True):
    """Jobs still leased to the session go back to the queue without counting the attempt."""

    session_id: SessionId
    worker_id: WorkerId
