"""What an agent is told: parsed and checked by others, plain values here."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from muster.agent.limits import ServiceLimits
from muster.agent.owner.rules import OwnerRules
from muster.domain.capability import CustomerAccess
from muster.domain.residency import ModelPolicy
from muster.ids import NodeId


class ServiceTemplate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service to run, once for the node or once for each GPU.

    `command` and `env` may use the placeholders of `services/template.py`; `model` and `bundle` are fetched before it
    starts. Without `port` a free one is taken; with
    it the first instance has that port and the others those that follow. `health` is a path that must answer 200 before
    the connector looks at the service. `limits` bind all its processes together, by a cgroup. `adopt` says when what
    runs is left to the next agent: after this one was killed, after any stop of it, or never. One that is `on_demand`
    rests until somebody asks for a model that it `serves`, by the name that it gives it.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    connector: str
    command: Annotated[tuple[str, ...], Meta(min_length=1)]
    per: Literal["node", "gpu"] = "node"
    model: Annotated[str, Meta(min_length=1)] | None = None
    bundle: Annotated[str, Meta(min_length=1)] | None = None
    health: Annotated[str, Meta(pattern="^/")] | None = None
    port: Annotated[int, Meta(ge=1, le=65_000)] | None = None
    slots: Annotated[int, Meta(ge=1, le=1024)] | None = None
    env: dict[str, str] = field(default_factory=dict)
    start_timeout_s: Annotated[float, Meta(gt=0)] = 120.0
    stop_timeout_s: Annotated[float, Meta(gt=0)] = 10.0
    restarts_max: Annotated[int, Meta(ge=0)] = 5
    limits: ServiceLimits = ServiceLimits()
    adopt: Literal["never", "after_crash", "after_stop"] = "after_crash"
    on_demand: bool = False
    serves: tuple[Annotated[str, Meta(min_length=1)], ...] = ()


class BasicMachine(Struct, frozen=True, kw_only=True):
    """The profile `basic-machine-local`: its ports, on loopback; 0: one that is free.

    ComfyUI's is that of the first GPU; the others follow.
    """

    comfyui_port: int = 8188
    simulation_port: int = 8299
    process_list_port: int = 9092


class AgentConfig(Struct, frozen=True, kw_only=True):
    """`attach` are (connector, url) of services that run already; `ignored_ports` are never looked at by discovery."""

    node_id: NodeId
    control_plane: str = ""  # its URL; empty: in this process
    node_type: str | None = None
    address: str | None = None
    instance_id: str | None = None
    nebula_ip: str | None = None
    public_ip: str | None = None
    region: str | None = None
    az: str | None = None
    pool: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    customers: CustomerAccess = CustomerAccess()
    heartbeat_interval_s: float = 10.0
    queen_interval_s: float = 1.0
    num_gpus: int | Literal["auto"] = "auto"
    worker_slots: int = 1
    attach: tuple[tuple[str, str], ...] = ()
    discover: bool = True
    ignored_ports: frozenset[int] = frozenset()
    services: tuple[ServiceTemplate, ...] = ()
    profile: BasicMachine | None = None
    model_policy: ModelPolicy | None = None
    owner: OwnerRules | None = None
    models: tuple[str, ...] = ()  # wanted here although no service names them
    commands: dict[str, tuple[str, ...]] = field(default_factory=dict)  # what `exec` may run, by name
    stop_timeout_s: float = 10.0
    adopt_within_s: float = 60.0  # how long services outlive an agent that was killed
    cgroup_root: str = ""  # below which each service has its cgroup; empty: the one delegated to us; none
    limits_required: bool = False
    look_every_s: float = 5.0  # at services
    discover_every_s: float = 30.0
