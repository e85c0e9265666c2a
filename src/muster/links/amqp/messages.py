"""What travels through the broker, and the same in the fleet's own words.

The fields that the documentation names are all that an agent of somebody else must send, and most of those may be
missing. Our own agents add `facts`, `boot_id` and `seq`: with `facts` a message speaks for itself, without it the
node's record holds where the message is silent.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct, field
from msgspec.structs import asdict, replace

from muster.domain.artifact import NodeArtifacts
from muster.domain.gpu import Gpu
from muster.domain.model import Model
from muster.domain.node import Health, Node, NodeFacts, Phase, Resources
from muster.domain.process import ProcessFigures
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import Worker
from muster.errors import InvalidInput
from muster.ids import NodeId, check_node_id, worker_id
from muster.links.amqp.topology import DEREGISTER_KEY, REGISTER_KEY
from muster.wire import CommandBatch, Deregistration, Heartbeat, HeartbeatReply, Registration, decode, encode
from muster.wire.codec import invalid
from muster.wire.pools import read_gpus

T = TypeVar("T")

NewBoot = Callable[[], str]

_INTERVAL_S = 30.0  # of agents that do not say theirs
_NULL = b"null"
_WELL = frozenset({"healthy", "online", "active", "ready", "ok", "up"})
_STATUSES = frozenset(ServiceStatus)
_UNKNOWN_CONNECTOR = "unknown"
_SERVICES = dict[str, Service]  # made once: each has a decoder of its own, found by this very object
_WORKERS = tuple[Worker, ...]


class _FlatFacts(Struct, frozen=True, kw_only=True):
    node_id: str
    node_type: str | None = None
    hostname: str | None = None
    address: str | None = None
    instance_id: str | None = None
    nebula_ip: str | None = None
    public_ip: str | None = None
    region: str | None = None
    az: str | None = None
    pool: str | None = None
    labels: dict[str, str] | None = None
    version: str | None = None
    boot_id: str | None = None
    heartbeat_interval_s: float | None = None
    timestamp: Any = None  # of the agent's clock, which has no meaning here
    facts: NodeFacts | None = None


class RegistrationMessage(_FlatFacts, frozen=True, kw_only=True):
    action: Literal["register", "deregister"] | None = None
    phase: Phase = Phase.STARTING
    capabilities: dict[str, Any] = field(default_factory=dict)
    gpus: tuple[Gpu, ...] = ()
    services: tuple[Service, ...] = ()
    reason: str | None = None


class HeartbeatMessage(_FlatFacts, frozen=True, kw_only=True):
    status: Health = Health.HEALTHY
    reason: str | None = None
    phase: Phase = Phase.READY
    services: Raw = Raw(_NULL)
    resources: Raw = Raw(_NULL)
    workers: Raw = Raw(_NULL)
    processes: tuple[ProcessFigures, ...] = ()
    seq: int | None = None
    draining: bool | None = None
    artifacts: NodeArtifacts = NodeArtifacts()


class ReportedResources(Resources, frozen=True, kw_only=True, omit_defaults=False):
    gpus: tuple[Gpu, ...] = ()
    models_loaded: tuple[str, ...] = ()


class PlainResources(Resources, frozen=True, kw_only=True):
    gpus: Any = None
    models_loaded: tuple[str, ...] = ()


class Letter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From the control plane to a node: commands, or what a heartbeat's reply would have said.

    Only the boot that it names heeds it; an empty one means whichever is alive.
    """

    boot_id: str = ""
    batch: CommandBatch | None = None
    reply: HeartbeatReply | None = None


# --- as an agent writes ----------------------------------------------------------------------------------------------


def registration_body(message: Registration, now_ms: int) -> bytes:
    facts = message.facts
    return encode(
        RegistrationMessage(
            action="register",
            node_id=facts.node_id,
            node_type=facts.node_type,
            hostname=facts.hostname,
            address=facts.address,
            instance_id=facts.instance_id,
            nebula_ip=facts.nebula_ip,
            public_ip=facts.public_ip,
            region=facts.region,
            az=facts.az,
            pool=facts.pool,
            labels=facts.labels,
            version=facts.version,
            capabilities={"cpu_cores": facts.cpu_cores, "gpus": message.gpus},
            timestamp=_rfc3339(now_ms),
            phase=message.phase,
            heartbeat_interval_s=message.heartbeat_interval_s,
            boot_id=message.boot_id,
            facts=facts,
            gpus=message.gpus,
            services=message.services,
        )
    )


def deregistration_body(message: Deregistration, now_ms: int) -> bytes:
    return encode({"action": DEREGISTER_KEY, "timestamp": _rfc3339(now_ms), **asdict(message)})


def heartbeat_body(message: Heartbeat, now_ms: int) -> bytes:
    loaded = dict.fromkeys(model.name for service in message.services for model in service.models if model.resident)
    return encode(
        {
            "node_id": message.facts.node_id,
            "status": message.status,
            "reason": message.reason,
            "phase": message.phase,
            "services": {service.name: service for service in message.services},
            "resources": ReportedResources(**asdict(message.resources), gpus=message.gpus, models_loaded=tuple(loaded)),
            "workers": message.workers,
            "processes": message.processes,
            "timestamp": _rfc3339(now_ms),
            "boot_id": message.boot_id,
            "seq": message.seq,
            "heartbeat_interval_s": message.heartbeat_interval_s,
            "draining": message.draining,
            "artifacts": message.artifacts,
            "facts": message.facts,
        }
    )


def _rfc3339(now_ms: int) -> str:
    return datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- as the control plane reads --------------------------------------------------------------------------------------


def node_id_of(message: _FlatFacts) -> NodeId:
    node_id = check_node_id(message.node_id)
    if message.facts is not None and message.facts.node_id != node_id:
        raise InvalidInput(f"node_id is {node_id!r}, and in facts {message.facts.node_id!r}", field="facts.node_id")
    return node_id


def read_registration(message: RegistrationMessage, known: Node | None, new_boot: NewBoot) -> Registration:
    """Without a boot id each registration is a new life of the node."""
    node_id = node_id_of(message)
    gpus = message.gpus or read_gpus(message.capabilities.get("gpus"))
    facts = message.facts
    if facts is None:
        cores = message.capabilities.get("cpu_cores")
        facts = _facts(message, NodeFacts(node_id=node_id, node_type="gpu-worker" if gpus else "cpu-worker"))
        facts = replace(facts, cpu_cores=cores if isinstance(cores, int) else None)
    return Registration(
        facts=facts,
        boot_id=message.boot_id or new_boot(),
        heartbeat_interval_s=_interval_s(message, known),
        phase=message.phase,
        gpus=gpus,
        services=message.services,
    )


def read_deregistration(message: RegistrationMessage, known: Node | None, new_boot: NewBoot) -> Deregistration:
    boot_id = message.boot_id or (known.boot_id if known else new_boot())
    return Deregistration(node_id=node_id_of(message), boot_id=boot_id, reason=message.reason or "stopped")


def wants_to_leave(message: RegistrationMessage, key: str) -> bool:
    return (message.action or (DEREGISTER_KEY if key == DEREGISTER_KEY else REGISTER_KEY)) == DEREGISTER_KEY


def read_heartbeat(message: HeartbeatMessage, known: Node | None, new_boot: NewBoot) -> Heartbeat:
    node_id = node_id_of(message)
    boot_id = message.boot_id or (known.boot_id if known else new_boot())
    next_seq = max(0, known.seq + 1) if known is not None and known.boot_id == boot_id else 0
    if message.facts is not None:
        reported = _part(message.resources, ReportedResources, "resources") or ReportedResources()
        facts, gpus = message.facts, reported.gpus
        services = tuple((_part(message.services, _SERVICES, "services") or {}).values())
        workers = _part(message.workers, _WORKERS, "workers") or ()
        resources = _resources(reported)
    else:
        plain = _part(message.resources, PlainResources, "resources") or PlainResources()
        gpus = known.gpus if plain.gpus is None and known is not None else read_gpus(plain.gpus)
        facts = _facts(message, known.facts if known else NodeFacts(node_id=node_id))
        if gpus and facts.node_type == "cpu-worker":
            facts = replace(facts, node_type="gpu-worker")
        services = _plain_services(message.services, plain.models_loaded)
        workers = _plain_workers(message.workers, node_id)
        resources = _resources(plain)
    draining = message.draining
    return Heartbeat(
        facts=facts,
        boot_id=boot_id,
        seq=next_seq if message.seq is None else message.seq,
        heartbeat_interval_s=_interval_s(message, known),
        status=message.status,
        reason=message.reason,
        phase=message.phase,
        resources=resources,
        gpus=gpus,
        workers=workers,
        services=services,
        processes=message.processes,
        # Who does not say has nothing to be corrected.
        draining=draining if draining is not None else (known.draining if known else False),
        artifacts=message.artifacts,
    )


def _facts(message: _FlatFacts, base: NodeFacts) -> NodeFacts:
    given = {
        name: value
        for name in NodeFacts.__struct_fields__
        if name != "node_id" and (value := getattr(message, name, None)) is not None
    }
    return replace(base, **given) if given else base


def _interval_s(message: _FlatFacts, known: Node | None) -> float:
    return message.heartbeat_interval_s or (known.heartbeat_interval_s if known else _INTERVAL_S)


def _resources(reported: Resources) -> Resources:
    return Resources(**{name: getattr(reported, name) for name in Resources.__struct_fields__})


def _plain_services(raw: Raw, models_loaded: tuple[str, ...]) -> tuple[Service, ...]:
    told = _part(raw, dict[str, Any], "services") or {}
    services = tuple(_plain_service(name, said) for name, said in told.items())
    listed = {model.name for service in services for model in service.models}
    loose = tuple(Model(name=name, resident=True) for name in dict.fromkeys(models_loaded) if name not in listed)
    if loose:  # of some service, and the agent does not say of which
        services += (
            Service(name="models-loaded", connector=_UNKNOWN_CONNECTOR, status=ServiceStatus.RUNNING, models=loose),
        )
    return services


def _plain_service(name: str, said: Any) -> Service:
    entry = said if isinstance(said, dict) else {"status": said}
    status, error = _status(entry.get("status", True))
    base: dict[str, Any] = {"name": name, "connector": _UNKNOWN_CONNECTOR, "error": error}
    return _converted(base | entry | {"status": status}, Service, f"services.{name}")


def _status(said: object) -> tuple[ServiceStatus, str | None]:
    if isinstance(said, bool):
        return (ServiceStatus.RUNNING if said else ServiceStatus.STOPPED), None
    word = str(said).casefold()
    if word in _WELL:
        return ServiceStatus.RUNNING, None
    if word in _STATUSES:
        return ServiceStatus(word), None
    return ServiceStatus.UNHEALTHY, f"its agent calls it {word[:64]!r}"


def _plain_workers(raw: Raw, node_id: NodeId) -> tuple[Worker, ...]:
    told = _part(raw, tuple[dict[str, Any], ...], "workers") or ()
    return tuple(
        _converted(
            {"worker_id": worker_id(node_id, index), "index": index, "status": "idle"} | entry, Worker, "workers"
        )
        for index, entry in enumerate(told)
    )


def _part(raw: Raw, kind: type[T], name: str) -> T | None:
    """Decode a part of a message that may be missing or null."""
    data = bytes(raw)
    if data == _NULL:
        return None
    try:
        return decode(data, kind)
    except InvalidInput as error:
        raise _within(name, error) from None


def _converted(entry: Mapping[str, Any], kind: type[T], name: str) -> T:
    try:
        return msgspec.convert(entry, kind)
    except msgspec.ValidationError as error:
        raise _within(name, invalid(error)) from None


def _within(name: str, error: InvalidInput) -> InvalidInput:
    return InvalidInput(error.message, field=f"{name}.{error.field}" if error.field else name)
