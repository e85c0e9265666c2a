"""Every seam of Muster as a small Protocol, in domain and wire types only.

Each port has a conformance suite under tests/contract that runs on the twin in memory and on every real adapter.
"""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from muster.access.tokens import Token, Usage
from muster.domain.batch import Batch, KeptFile
from muster.domain.capability import Capability
from muster.domain.command import Command
from muster.domain.event import Event, LoggedEvent
from muster.domain.file import FileRef
from muster.domain.gpu import Gpu
from muster.domain.job import ClaimedJob, Job, JobSpec, JobStatus, Lease, Need, Progress, Settlement
from muster.domain.machine import Launch, Machine
from muster.domain.node import Node, Resources
from muster.domain.queue import CustomerFigures, CustomerTerms, QueueFigures
from muster.domain.schedule import Schedule
from muster.domain.service import Service
from muster.domain.webhook import Delivery, HookState, Webhook
from muster.ids import JobId, NodeId, SessionId, WorkerId
from muster.placement.candidate import Candidate
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
    OpenSession,
    ProgressReport,
    ProgressReports,
    Registration,
    RegistrationReply,
    RenewReply,
    RenewRequest,
    SessionReply,
)

# --- life of a service inside a process ------------------------------------------------------------------------------


class Lifecycle(Protocol):
    """Everything that runs: started once, stopped in reverse order; a stop too early or too often does nothing."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


# --- agent <-> control plane -----------------------------------------------------------------------------------------


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
    async def join(self, message: Join) -> Joined:
        """Exchange a join token for one of the node's own; Forbidden where that is not what was shown."""
        ...


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


# --- the store -------------------------------------------------------------------------------------------------------


class Submitted(Struct, frozen=True):
    job_id: JobId
    created: bool  # false: this id was known; nothing was changed


class Claimed(Struct, frozen=True, kw_only=True):
    jobs: tuple[ClaimedJob, ...] = ()
    refused: tuple[JobId, ...] = ()
    session_known: bool = True


class Renewed(Struct, frozen=True, kw_only=True):
    lost: tuple[JobId, ...] = ()
    returned: tuple[JobId, ...] = ()
    session_known: bool = True


class JobPage(Struct, frozen=True, kw_only=True):
    jobs: tuple[Job, ...]
    total: int
    next_cursor: str | None = None


class CapabilityClass(Struct, frozen=True, kw_only=True):
    class_id: str
    capability: Capability
    sessions: int  # how many live sessions have it; 0: nobody at present


class Expired(Struct, frozen=True, kw_only=True):
    """Jobs that their own deadline ended, each with the worker that ran it; `more`: there may be others."""

    jobs: tuple[tuple[JobId, WorkerId | None], ...]
    more: bool


class JobQueue(Protocol):
    """The work itself. Every call is atomic and safe to repeat; leases are judged by the store's one clock."""

    async def submit(self, specs: Sequence[JobSpec]) -> list[Submitted]:
        """Raise InvalidInput for a dependency that does not exist, QueueFull where too many of a customer wait."""
        ...

    async def open_session(
        self, session_id: SessionId, worker_id: WorkerId, capability: Capability, lease_s: float
    ) -> None: ...

    async def claim(
        self,
        session_id: SessionId,
        worker_id: WorkerId,
        want: int,
        done: Sequence[Settlement] = (),
        *,
        lease_s: float,
        mark_idle: bool = False,
    ) -> Claimed:
        """Settle `done`, renew the session, take the best `want` jobs: priority, then first come, over all signatures.

        With `mark_idle` an empty claim asks the bus for a wake-up (topic "wake", the class id) when work arrives.
        """
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """End attempts from outside a session (sweep, failures); False where the attempt was not the running one."""
        ...

    async def renew(
        self, session_id: SessionId, held: Sequence[tuple[JobId, int]], *, lease_s: float, grace_s: float
    ) -> Renewed:
        """Leases older than `grace_s` that are not in `held` go back to the queue: the claim's reply was lost."""
        ...

    async def record_progress(self, session_id: SessionId, reports: Sequence[ProgressReport]) -> list[JobId]:
        """Return the ids whose lease is lost."""
        ...

    async def close_session(self, session_id: SessionId) -> list[JobId]: ...


class JobIndex(Protocol):
    """Reading and acting on single jobs."""

    async def get(self, job_ids: Sequence[JobId]) -> list[Job | None]: ...
    async def page(self, status: JobStatus | None, cursor: str | None, limit: int) -> JobPage:
        """Pending and delayed jobs come in queue order, all others newest first. A bad cursor is InvalidInput."""
        ...

    async def counts(self) -> dict[JobStatus, int]:
        """Count each job once: the pending ones that nobody who is there can run as unworkable."""
        ...

    async def position(self, job_id: JobId) -> int | None:
        """How many pending jobs come before it, over all signatures; None when it does not wait."""
        ...

    async def waiting(self, need: Need) -> int:
        """Count the jobs in line with this very need."""
        ...

    async def cancel(self, job_id: JobId) -> Job:
        """Raise JobNotFound, or InvalidTransition when it has already ended."""
        ...

    async def revive(self, job_id: JobId) -> Job:
        """Put a failed, timed-out or cancelled job back with its retries counted anew; raises as `cancel` does."""
        ...


class JobLines(Protocol):
    """What is said of many jobs at once: their queues, each of one service, and their customers."""

    async def queues(self) -> list[QueueFigures]: ...
    async def paused(self) -> frozenset[str]:
        """Return the paused services; ALL_SERVICES: every one."""
        ...

    async def set_paused(self, service: str, *, paused: bool) -> bool:
        """Return whether that changed something."""
        ...

    async def customers(self) -> list[CustomerFigures]:
        """Return those for whom something is set."""
        ...

    async def customer(self, name: str) -> CustomerFigures: ...
    async def set_customer(self, name: str, terms: CustomerTerms | None) -> bool:
        """Return whether there were terms before; None: forget them."""
        ...


class JobUpkeep(Protocol):
    """What the sweep needs."""

    async def overdue(self, limit: int) -> list[Lease]: ...
    async def promote(self, limit: int) -> int:
        """Bring into line what is due, and go on with those whose dependencies have ended; return how many."""
        ...

    async def expire(self, limit: int) -> Expired:
        """End jobs whose `deadline_s` is over, waiting or running."""
        ...

    async def purge(self, ended_before_ms: int, keep_max: int, limit: int) -> int: ...
    async def classes(self) -> list[CapabilityClass]: ...


class NodeStore(Protocol):
    async def load(self) -> list[Node]: ...
    async def create(self, node: Node) -> bool:
        """Keep a node that was not known; False: somebody else's record of it is there, and stays."""
        ...

    async def save(self, nodes: Sequence[Node]) -> None: ...
    async def delete(self, node_ids: Sequence[NodeId]) -> None: ...


class CommandStore(Protocol):
    """Open commands and the newest ended ones. A record never goes back: the one that stands higher is kept."""

    async def load(self) -> list[Command]:
        """Return all that are kept, the oldest first."""
        ...

    async def save(self, commands: Sequence[Command]) -> None: ...


class Leases(Protocol):
    """What only one of several control planes may do, judged by the store's one clock."""

    async def take(self, name: str, owner: str, ttl_s: float) -> bool:
        """Take it, or renew it; False while another owner has it."""
        ...

    async def release(self, name: str, owner: str) -> None: ...


class ScheduleStore(Protocol):
    """Recurring jobs, and when each is due next. What a person sets, the sweep does not overwrite."""

    async def all(self) -> list[Schedule]: ...
    async def get(self, schedule_id: str) -> Schedule | None: ...
    async def save(self, schedule: Schedule) -> None:
        """Keep it as it is given, with its `next_at`; what is known of its last job stays."""
        ...

    async def delete(self, schedule_id: str) -> bool: ...
    async def due(self, now_ms: int, limit: int) -> list[Schedule]:
        """Return those whose `next_at` has come, the longest overdue first."""
        ...

    async def advance(
        self, schedule: Schedule, next_at: int | None, last_at: int | None, last_job_id: str | None
    ) -> bool:
        """Set the next time of what `due` returned, unless it has been changed since; then return False."""
        ...


class EventLog(Protocol):
    """The durable, capped log of facts. Ids are strings that grow; "0" is before the first."""

    async def append(self, events: Sequence[Event]) -> list[str]: ...
    async def read(self, after: str, limit: int, wait_s: float = 0.0) -> list[LoggedEvent]: ...
    async def newest_id(self) -> str: ...
    async def oldest_id(self) -> str: ...


class TokenStore(Protocol):
    """Tokens, without their secrets, and what happened with them."""

    async def load(self) -> list[Token]: ...
    async def add(self, token: Token) -> bool:
        """Return False, and change nothing, when there is another one of this id."""
        ...

    async def remove(self, token_id: str) -> bool: ...
    async def count_use(self, token_id: str) -> int:
        """Return how many uses it has with this one."""
        ...

    async def note_used(self, at_ms: Mapping[str, int]) -> None: ...
    async def usage(self) -> dict[str, Usage]:
        """Tokens of which nothing is known are left out."""
        ...


class WebhookStore(Protocol):
    """Webhooks, and how it goes with them."""

    async def load(self) -> list[Webhook]:
        """Return all, the oldest first."""
        ...

    async def add(self, webhook: Webhook) -> None: ...
    async def remove(self, webhook_id: str) -> bool:
        """Forget it with all of its deliveries."""
        ...

    async def states(self) -> dict[str, HookState]: ...
    async def set_state(self, webhook_id: str, state: HookState) -> None: ...


class DeliveryStore(Protocol):
    """What webhooks are to be told and were told; what waits to be sent outlives everybody."""

    async def position(self) -> str | None:
        """Return up to where the log has been turned into deliveries; None before the first time."""
        ...

    async def plan(self, deliveries: Sequence[Delivery], position: str | None = None) -> None:
        """Keep what is to be sent, and after it the position."""
        ...

    async def pending(self) -> list[Delivery]:
        """Return what is to be sent, in the order of the log."""
        ...

    async def settle(self, delivery: Delivery) -> None:
        """Keep how it stands; what has ended is to be sent no more and becomes a part of the webhook's history."""
        ...

    async def history(self, webhook_id: str) -> list[Delivery]:
        """Return the newest that ended, the last one first."""
        ...


class Files(Struct, frozen=True, kw_only=True):
    """What one owner has in a BlobStore."""

    bytes: int
    changed_at_ms: int


class BlobStore(Protocol):
    """Files by owner and name, both safe in paths. Raises StoreUnavailable while it is away."""

    async def put(self, owner: str, name: str, data: AsyncIterable[bytes]) -> None:
        """Keep it whole, in place of what had the name, or not at all: also when `data` raises."""
        ...

    async def size(self, owner: str, name: str) -> int | None: ...
    def read(self, owner: str, name: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Give the bytes from `start` to before `end`."""
        ...

    async def owners(self) -> dict[str, Files]: ...
    async def delete(self, owner: str) -> None: ...


class FileIndex(Protocol):
    """Files that people know by an id."""

    async def files(self) -> list[KeptFile]:
        """Return all, the oldest first."""
        ...

    async def file(self, file_id: str) -> KeptFile | None: ...
    async def save_file(self, file: KeptFile) -> None: ...
    async def remove_file(self, file_id: str) -> bool: ...


class BatchStore(Protocol):
    """Only who leads saves a batch once it is made."""

    async def batches(self) -> list[Batch]:
        """Return all, the oldest first."""
        ...

    async def batch(self, batch_id: str) -> Batch | None: ...
    async def save(self, batch: Batch) -> None: ...
    async def remove(self, batch_id: str) -> None: ...
    async def ask_cancel(self, batch_id: str, at_ms: int) -> None:
        """Keep that it is to be cancelled; the first time counts."""
        ...

    async def cancels(self) -> dict[str, int]:
        """Return since when which batches are to be cancelled."""
        ...


class Bus(Protocol):
    """Fire and forget between control planes: wake-ups and live telemetry. Nothing is kept."""

    async def publish(self, topic: str, data: bytes) -> None: ...
    def subscribe(self, topic: str) -> AsyncIterator[bytes]: ...


# --- the fleet as placement sees it ----------------------------------------------------------------------------------


class FleetView(Protocol):
    @property
    def version(self) -> int:
        """Grow with every change that a choice could notice."""
        ...

    def candidates(self) -> Sequence[Candidate]: ...


# --- machines rented by the hour -------------------------------------------------------------------------------------


class CloudProvider(Protocol):
    """Raises CloudFailed and its kinds, MachineNotFound, InvalidInput; each call ends within its own deadline."""

    async def create(self, launch: Launch) -> Machine:
        """Make a machine, or return the one that this launch's token has made; Conflict when that one is gone."""
        ...

    async def list(self, fleet: str) -> list[Machine]:
        """Return the fleet's machines; those that are gone as long as the cloud remembers them."""
        ...

    async def start(self, machine_id: str) -> Machine:
        """Do nothing to one that runs; raise Conflict while it is stopping."""
        ...

    async def stop(self, machine_id: str) -> Machine: ...
    async def terminate(self, machine_id: str) -> Machine: ...
    def hourly_usd(self, machine_type: str, *, spot: bool) -> float | None:
        """Return None when the price is not known."""
        ...

    async def close(self) -> None: ...


class Waker(Protocol):
    """The gateway's way to models whose machines are at rest."""

    def wake(self, model: str) -> Awaitable[None] | None:
        """Return None when no machine at rest has the model; else what ends when it is served, or raises ModelAsleep.

        However many ask, the machine is started once; giving one wait up changes nothing for the others.
        """
        ...

    def models(self) -> Iterable[str]:
        """Return the names of all models that could be woken; some may be served already."""
        ...


class RentedMachine(Protocol):
    """A machine in a cloud, as one can be woken and sent to sleep; each call returns what there is to know of it."""

    async def start(self) -> Mapping[str, Any]: ...
    async def stop(self) -> Mapping[str, Any]: ...
    async def set_idle_time(self, ttl_s: float) -> Mapping[str, Any]:
        """Say after how much idleness it is stopped; 0: never."""
        ...


# --- devices and services on a node ----------------------------------------------------------------------------------


class GpuProbe(Protocol):
    async def read(self) -> tuple[Gpu, ...]:
        """Return within its deadline; unreadable figures are None, no driver is an empty tuple."""
        ...


class HostProbe(Protocol):
    def read(self) -> Resources: ...


ReportProgress = Callable[[Progress], None]


class JobFiles(Protocol):
    """What is too large for a payload or a result: kept by the control plane, spoken of by reference."""

    async def put(self, name: str, data: bytes | Path) -> FileRef:
        """Keep a file of this attempt until its job is forgotten; PayloadTooLarge where there is a limit."""
        ...

    async def get(self, url: str, into: Path) -> int:
        """Fetch a file that a payload names by its `url`; return its size in bytes."""
        ...


class Connector(Protocol):
    """Code by which a worker drives a kind of service."""

    @property
    def name(self) -> str: ...
    @property
    def provides(self) -> tuple[str, ...]:
        """The `service_required` values it serves, its own name first."""
        ...

    @property
    def needs_service(self) -> bool: ...

    async def probe(self, url: str) -> Service:
        """Return name, status, models and slots of the service at `url`; raise UpstreamFailed when it is silent."""
        ...

    def check(self, payload: Any) -> None:
        """Raise InvalidInput naming the field, at submit."""
        ...

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of its payloads; `check` may ask for more than it can say."""
        ...

    async def run(self, job: ClaimedJob, service: Service | None, report: ReportProgress, files: JobFiles) -> Any:
        """Return the result (JSON); raise MusterError, whose `retriable` decides about another attempt.

        Cancelled, it has a second to tell its service.
        """
        ...


class JobKind(Struct, frozen=True, kw_only=True):
    """What a control plane needs of a connector: the names of its jobs, and what their payloads may be."""

    name: str
    provides: tuple[str, ...]
    check: Callable[[Any], None]
    schema: Mapping[str, Any]


@runtime_checkable
class PullsModels(Protocol):
    """A connector whose services fetch models themselves."""

    async def pull_model(self, service: Service, model: str, report: ReportProgress) -> Any:
        """Return what was fetched (JSON), once the service has it whole."""
        ...


@runtime_checkable
class UnloadsModels(Protocol):
    """A connector whose services can let go of a model's memory."""

    async def unload_model(self, service: Service, model: str) -> Any: ...


@runtime_checkable
class RemovesModels(Protocol):
    """A connector whose services can delete a model from their disk."""

    async def remove_model(self, service: Service, model: str) -> Any: ...
