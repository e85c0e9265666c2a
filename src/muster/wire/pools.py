"""What pool managers say over `/v2`, and the same in the fleet's own words: a pool is a service of its node.

These callers are many and old: everything but the ids may be missing, and what a GPU is called is theirs to choose.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeGuard
from urllib.parse import urlsplit

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from muster.domain.gpu import Gpu
from muster.domain.model import Model
from muster.domain.node import Node, NodeFacts, Phase, Resources
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.errors import InvalidInput
from muster.ids import NodeId, check_name
from muster.wire.agent import Heartbeat, Registration

LINK = "v2"

_BYTES_MAX = 2**60
_BYTES_PER_MB = 1024 * 1024
_UNITS_MB = {"_bytes": 1 / _BYTES_PER_MB, "_mb": 1.0, "_gb": 1024.0, "": 1 / _BYTES_PER_MB}
_ENGINES = {"llama.cpp": "llamacpp", "llama-cpp": "llamacpp", "llama_cpp": "llamacpp"}
_FALLBACK_ENGINE = "openai"

_Count = Annotated[int, Meta(ge=0, le=1_000_000)]
_Bytes = Annotated[int, Meta(ge=0, le=_BYTES_MAX)]
_Name = Annotated[str, Meta(min_length=1, max_length=256)]
_Text = Annotated[str, Meta(max_length=1024)]
_Pools = Annotated[list[_Name], Meta(max_length=256)]


class RegisterNode(Struct, frozen=True, kw_only=True):
    """`address` is where its pools answer: a URL, host:port or host."""

    node_id: str
    machine_id: _Text | None = None
    address: _Text | None = None
    pools: _Pools = []
    capabilities: dict[str, Any] | None = None
    version: _Text | None = None
    labels: Annotated[dict[str, _Text], Meta(max_length=64)] = {}
    region: _Text | None = None


class PoolStatus(Struct, frozen=True, kw_only=True):
    """`url` is for a pool that answers elsewhere than its node's address."""

    pool_id: _Name
    ready: bool = False
    draining: bool = False
    slots_free: _Count | None = None
    slots_total: _Count | None = None
    vram_free_bytes: _Bytes | None = None
    vram_total_bytes: _Bytes | None = None
    engine: _Name | None = None
    models_available: Annotated[list[_Name], Meta(max_length=10_000)] = []
    url: _Text | None = None
    last_error: _Text | None = None


class PoolHeartbeat(Struct, frozen=True, kw_only=True):
    """How all pools of a node are. Its clock has no meaning here."""

    timestamp: Any = None
    pools: Annotated[list[PoolStatus], Meta(max_length=256)] = field(default_factory=list)
    gpus: Annotated[list[Any], Meta(max_length=64)] | None = None


def registration_of(message: RegisterNode, boot_id: str, interval_s: float) -> Registration:
    able = message.capabilities or {}
    base = base_url(message.address, "address")
    gpus = read_gpus(able.get("gpus"))
    facts = NodeFacts(
        node_id=NodeId(message.node_id),
        node_type="gpu-worker" if gpus else "cpu-worker",
        hostname=message.machine_id,
        address=None if base is None else urlsplit(base).hostname,
        service_url=base,
        region=message.region,
        labels=message.labels,
        version=message.version,
        cpu_cores=_count(able.get("cpu_cores")),
    )
    waiting = tuple(_service(PoolStatus(pool_id=pool), base) for pool in dict.fromkeys(message.pools))
    return Registration(
        facts=facts, boot_id=boot_id, heartbeat_interval_s=interval_s, phase=Phase.STARTING, gpus=gpus, services=waiting
    )


def heartbeat_of(message: PoolHeartbeat, node: Node, interval_s: float) -> Heartbeat:
    """Say what the message says of `node`, whose facts and GPUs hold where it is silent."""
    pools = {status.pool_id: status for status in message.pools}
    gpus = node.gpus if message.gpus is None else read_gpus(message.gpus)
    facts = node.facts
    if gpus and facts.node_type == "cpu-worker":
        facts = replace(facts, node_type="gpu-worker")
    return Heartbeat(
        facts=facts,
        boot_id=node.boot_id,
        seq=max(0, node.seq + 1),
        heartbeat_interval_s=interval_s,
        phase=Phase.READY,
        resources=Resources(),
        gpus=gpus,
        services=tuple(_service(status, facts.service_url) for status in pools.values()),
        draining=node.draining,
    )


def engine_of(name: str | None) -> str:
    """Return the connector's name for an engine; whoever names none speaks OpenAI's API."""
    folded = (name or _FALLBACK_ENGINE).casefold()
    return _ENGINES.get(folded, folded)


def base_url(address: str | None, name: str) -> str | None:
    """Return `http://host:port` for a URL, host:port or host; InvalidInput when it is none of them."""
    if not address:
        return None
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits or not url.isascii() or any(char.isspace() for char in url):
        raise InvalidInput(f"{name} must be a URL, host:port or host, got {address!r}", field=name)
    return url.rstrip("/")


def read_gpus(entries: object) -> tuple[Gpu, ...]:
    """Take what can be understood of free-form entries; figures under no known name stay unknown."""
    if not isinstance(entries, list):
        return ()
    return tuple(
        Gpu(
            index=index,
            name=_first_text(entry, ("name", "model", "device", "device_id", "id")) or "unknown",
            memory_total_mb=_memory_mb(entry, ("vram_total", "vram", "memory_total", "memory")),
            memory_used_mb=_used_mb(entry),
        )
        for index, entry in enumerate(entry for entry in entries if isinstance(entry, Mapping))
    )


def _used_mb(entry: Mapping[str, Any]) -> int | None:
    used, free = _memory_mb(entry, ("vram_used", "memory_used")), _memory_mb(entry, ("vram_free", "memory_free"))
    total = _memory_mb(entry, ("vram_total", "vram", "memory_total", "memory"))
    return max(0, total - free) if used is None and free is not None and total is not None else used


def _memory_mb(entry: Mapping[str, Any], names: Iterable[str]) -> int | None:
    for name in names:
        for unit, factor in _UNITS_MB.items():
            value = entry.get(name + unit)
            if _is_figure(value) and value * factor * _BYTES_PER_MB <= _BYTES_MAX:
                return int(value * factor)
    return None


def _first_text(entry: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((text[:128] for name in names if isinstance(text := entry.get(name), str) and text), None)


def _count(value: object) -> int | None:
    return int(value) if _is_figure(value) and value <= _BYTES_MAX else None


def _is_figure(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _service(status: PoolStatus, node_url: str | None) -> Service:
    engine = engine_of(status.engine)
    total = status.slots_total if status.slots_total is not None else status.slots_free
    return Service(
        name=check_name(status.pool_id, "pool_id"),
        connector=engine,
        status=_status(status),
        url=base_url(status.url, "url") or node_url,
        dialects=(Dialect.OLLAMA, Dialect.OPENAI) if engine == "ollama" else (Dialect.OPENAI,),
        models=tuple(Model(name=name) for name in dict.fromkeys(status.models_available)),
        slots=total,
        slots_busy=None if total is None or status.slots_free is None else max(0, total - status.slots_free),
        memory_total_bytes=status.vram_total_bytes,
        memory_free_bytes=status.vram_free_bytes,
        draining=status.draining,
        error=status.last_error,
    )


def _status(status: PoolStatus) -> ServiceStatus:
    if status.ready:
        return ServiceStatus.RUNNING
    return ServiceStatus.UNHEALTHY if status.last_error else ServiceStatus.STARTING
