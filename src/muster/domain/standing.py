"""How the parts beside the control planes stand, as they say it themselves: the store, and the broker."""

from msgspec import Struct


class StoreStanding(Struct, frozen=True, kw_only=True):
    """None is what a store does not tell; `limit_mb` is None also where there is no limit."""

    product: str
    version: str | None = None
    ping_ms: float
    uptime_s: int | None = None
    memory_mb: float | None = None
    limit_mb: float | None = None
    clients: int | None = None
    ops_per_s: int | None = None
    keys: int
    log_entries: int
    append_only: bool | None = None
    append_error: str | None = None  # why what is written may not outlive it
    saved_at_ms: int | None = None
    role: str | None = None
    replicas: int | None = None
    primary_up: bool | None = None  # of a replica: whether it hears its primary


class BrokerQueue(Struct, frozen=True, kw_only=True):
    """`ready` and `consumers` are the broker's word; the others are what this control plane did since its start."""

    name: str
    ready: int | None
    consumers: int | None
    unacked: int
    received: int
    refused: int


class ManagedQueue(Struct, frozen=True, kw_only=True):
    """One of the vhost, with what all its consumers together hold; None is what the broker does not tell (yet)."""

    name: str
    ready: int | None
    unacked: int | None
    consumers: int | None
    published_per_s: float | None
    delivered_per_s: float | None
    acked_per_s: float | None


class BrokerManagement(Struct, frozen=True, kw_only=True):
    """The word of its management API. Where that does not answer, `error` and `next_step` say why."""

    address: str
    queues: tuple[ManagedQueue, ...] = ()
    queue_count: int = 0  # there may be more than are listed
    error: str | None = None
    next_step: str | None = None


class BrokerStanding(Struct, frozen=True, kw_only=True):
    """`since_ms` is when it was reached or lost. There may be an `error` while it is connected, too.

    `management` is null where that API is not to be asked.
    """

    address: str  # without its password
    connected: bool
    since_ms: int
    reconnects: int
    product: str | None = None
    error: str | None = None
    next_step: str | None = None
    queues: tuple[BrokerQueue, ...] = ()
    management: BrokerManagement | None = None
