"""Where everything else is kept, and how control planes hear of each other."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from muster.access.tokens import Token, Usage
from muster.domain.batch import Batch, KeptFile
from muster.domain.command import Command
from muster.domain.event import Event, LoggedEvent
from muster.domain.node import Node
from muster.domain.schedule import Schedule
from muster.domain.standing import StoreStanding
from muster.domain.stream import KeptStream, StreamPart
from muster.domain.usage import Spent, Sum
from muster.domain.webhook import Delivery, HookState, JobHooks, Webhook
from muster.ids import NodeId


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
    async def holder(self, name: str) -> str | None:
        """Return who has it; None: nobody."""
        ...


class StoreProbe(Protocol):
    """How the store stands. Raises StoreUnavailable when it does not say so."""

    async def standing(self) -> StoreStanding: ...


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

    async def since(self, at_ms: int) -> str:
        """Return an id after which all comes that was appended from that time on, by the store's clock."""
        ...

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

    async def change(self, token: Token) -> bool:
        """Put it in the place of the one that has its id; False: there is none."""
        ...

    async def remove(self, token_id: str) -> bool: ...
    async def count_use(self, token_id: str) -> int:
        """Return how many uses it has with this one."""
        ...

    async def note_used(self, at_ms: Mapping[str, int]) -> None: ...
    async def usage(self) -> dict[str, Usage]:
        """Tokens of which nothing is known are left out."""
        ...


class UsageStore(Protocol):
    """What was used, summed by hour and by day; and what each token has had of its day and month."""

    async def add(self, batch_id: str, sums: Sequence[Sum], spent: Mapping[str, Spent], at_ms: int) -> None:
        """Add to the sums of their hours and days, and to what tokens have had at that time; each batch once."""
        ...

    async def spent(self, at_ms: int) -> dict[str, Spent]:
        """Return what tokens have had of the day and month of that time; those that had nothing are left out."""
        ...

    async def read(self, from_ms: int, to_ms: int, *, hourly: bool) -> list[Sum]:
        """Return the sums of the hours, or days, that begin from the one time on and before the other."""
        ...

    async def forget(self, hours_before_ms: int, days_before_ms: int) -> None:
        """Drop the hours and days that began before."""
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

    async def job_hooks(self) -> JobHooks | None:
        """Return since when jobs have addresses of their own; None before the first."""
        ...

    async def begin_job_hooks(self, first: JobHooks) -> JobHooks:
        """Keep it unless there is one, and return the one that counts."""
        ...

    async def plan(self, deliveries: Sequence[Delivery], position: str | None = None) -> None:
        """Keep what is to be sent, and after it the position."""
        ...

    async def pending_count(self) -> int: ...
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


class StreamStore(Protocol):
    """Answers that callers may come back for. Judged by the store's clock: what is over its time is not there."""

    async def write(self, parts: Sequence[StreamPart], bytes_max: int) -> list[int | None]:
        """Add each part; return when its answer was last read here, in ms, 0: never.

        None: an opening finds more than `bytes_max` kept in all; what follows finds its answer gone, ended, or in the
        hands of somebody else. A part that comes again changes nothing.
        """
        ...

    async def read(self, stream_id: str, offset: int, limit: int) -> KeptStream | None:
        """Return at most `limit` bytes of its body from the offset on."""
        ...

    async def take(self, stream_id: str, runner: str, lease_s: float) -> bool:
        """Be the one who goes on with an answer that has not ended; False: somebody does."""
        ...

    async def remove(self, stream_id: str) -> bool: ...


class Bus(Protocol):
    """Fire and forget between control planes: wake-ups and live telemetry. Nothing is kept."""

    async def publish(self, topic: str, data: bytes) -> None: ...
    def subscribe(self, topic: str, ready: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
        """Yield what is published; `ready` is called once nothing from then on is missed."""
        ...
