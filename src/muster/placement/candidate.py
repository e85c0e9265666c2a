"""What placement chooses among: one service on one node, as last known."""

from msgspec import Struct, field

from muster.domain.model import Model, canonical_model_name
from muster.domain.node import Health
from muster.domain.service import Dialect, ServiceStatus
from muster.ids import NodeId


class Candidate(Struct, frozen=True, kw_only=True):
    """`key` is `node_id/service`; `late` is the registry's word that the node missed heartbeats."""

    key: str
    node_id: NodeId
    service: str
    connector: str
    url: str
    dialects: tuple[Dialect, ...]
    models: dict[str, Model]  # by canonical name
    status: ServiceStatus = ServiceStatus.RUNNING
    health: Health = Health.HEALTHY
    connected: bool = True
    late: bool = False
    draining: bool = False
    on_demand: bool = False  # what is not resident has to be loaded first, by command
    pool: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    slots: int | None = None
    slots_busy: int | None = None
    requests_waiting: int | None = None  # in the engine's own line
    memory_free_mb: int | None = None
    memory_total_mb: int | None = None
    disk_free_mb: int | None = None  # of its node
    memory_of_others: tuple[tuple[str, int], ...] = ()  # processes from outside on its GPUs and their MB, most first
    gpu_trouble: str | None = None  # why its GPU is out of service, in words

    def model(self, name: str) -> Model | None:
        return self.models.get(canonical_model_name(name))
