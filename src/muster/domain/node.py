from enum import StrEnum

from msgspec import Struct, field

from muster.domain.artifact import NodeArtifacts
from muster.domain.gpu import Gpu
from muster.domain.process import ProcessFigures
from muster.domain.residency import ModelPolicy
from muster.domain.service import Service
from muster.domain.worker import Worker
from muster.ids import NodeId


class Health(StrEnum):
    """The control plane's judgement. The middle three are the agent's own word while it is heard."""

    REGISTERING = "registering"  # registered, no heartbeat yet
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    STALE = "stale"
    DEAD = "dead"


class Phase(StrEnum):
    """The agent's own life."""

    STARTING = "starting"
    CONFIGURING = "configuring"
    READY = "ready"
    STOPPING = "stopping"
    OFFLINE = "offline"
    ERROR = "error"


class NodeFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node says of itself and seldom changes."""

    node_id: NodeId
    node_type: str = "cpu-worker"
    hostname: str | None = None
    address: str | None = None  # the host under which others reach its services
    service_url: str | None = None  # where all its services answer, if they share a door
    instance_id: str | None = None
    nebula_ip: str | None = None
    public_ip: str | None = None
    region: str | None = None
    az: str | None = None
    pool: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    version: str | None = None
    platform: str | None = None
    cpu_cores: int | None = None
    models: ModelPolicy | None = None  # None: its engines load and unload as they like


class Resources(Struct, frozen=True, kw_only=True, omit_defaults=True):
    memory_total_mb: int | None = None
    memory_used_mb: int | None = None
    cpu_percent: float | None = None
    disk_total_mb: int | None = None
    disk_free_mb: int | None = None


class Node(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The one record of a node, whatever link it uses. Times are the control plane's own, in ms since the epoch."""

    facts: NodeFacts
    health: Health
    phase: Phase = Phase.STARTING
    connected: bool = True  # false: dead, or its link is known to be closed
    draining: bool = False
    drained_services: tuple[str, ...] = ()  # by name: single services that people keep from new work
    draining_at_ms: int = 0  # when people last decided about either: heartbeats have no say in it
    link: str = "http"
    boot_id: str = ""
    seq: int = 0
    revision: int = 0  # grows with every change; of two records that heard the same heartbeat the higher one is newer
    retired_boot_ids: tuple[str, ...] = ()
    heartbeat_interval_s: float = 30.0
    registered_at_ms: int = 0
    last_seen_ms: int = 0
    booted_at_ms: int = 0  # when this boot of the agent was first heard
    resources: Resources = Resources()
    gpus: tuple[Gpu, ...] = ()
    workers: tuple[Worker, ...] = ()
    services: tuple[Service, ...] = ()
    processes: tuple[ProcessFigures, ...] = ()  # how those services that it started are doing
    reason: str | None = None  # why it is not healthy, in words
    artifacts: NodeArtifacts = NodeArtifacts()

    @property
    def node_id(self) -> NodeId:
        return self.facts.node_id
