"""What a worker has to offer: its capability, and the connector and service behind each kind of job."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from muster.domain.capability import Capability, CustomerAccess
from muster.domain.gpu import Gpu
from muster.domain.job import JobSpec
from muster.domain.model import canonical_model_name
from muster.domain.service import Service, ServiceStatus
from muster.ports import Connector

_MB_PER_GB = 1024


class Tool(Struct, frozen=True):
    connector: Connector
    service: Service | None = None

    @property
    def key(self) -> str:
        return self.connector.name if self.service is None else self.service.name


class Means(Struct, frozen=True, kw_only=True):
    """What a worker has besides services."""

    gpu: Gpu | None = None
    cpu_cores: int = 0
    memory_total_mb: int | None = None
    labels: dict[str, str] = {}
    custom: dict[str, Any] = {}
    customers: CustomerAccess = CustomerAccess()


class Offer(Struct, frozen=True, kw_only=True):
    """`tools` by the `service_required` they serve; `statuses` by connector."""

    capability: Capability = Capability()
    tools: dict[str, tuple[Tool, ...]] = {}
    statuses: dict[str, str] = {}


def make_offer(connectors: Mapping[str, Connector], services: Sequence[Service], means: Means) -> Offer:
    """Offer every connector that needs no service, and those whose service runs on the worker's GPU or for all.

    One that rests until it is asked for is as good: it is started for the job.
    """
    tools: dict[str, list[Tool]] = {}
    statuses: dict[str, str] = {}
    models: set[str] = set()
    for connector in connectors.values():
        if not connector.needs_service:
            _add(tools, Tool(connector))
            statuses[connector.name] = ServiceStatus.RUNNING.value
    for service in services:
        connector_of = connectors.get(service.connector)
        if connector_of is None or not _serves(service, means.gpu):
            continue
        if statuses.get(service.connector) != ServiceStatus.RUNNING:
            statuses[service.connector] = service.status.value
        if service.status is ServiceStatus.RUNNING or (service.on_demand and service.status is ServiceStatus.STOPPED):
            _add(tools, Tool(connector_of, service))
            models |= {canonical_model_name(model.name) for model in service.models}
    return Offer(
        capability=_capability(tuple(tools), tuple(sorted(models)), means),
        tools={name: tuple(entries) for name, entries in tools.items()},
        statuses=statuses,
    )


def choose_tool(offer: Offer, spec: JobSpec, in_use: Mapping[str, int]) -> Tool | None:
    """Return the tool that has most of the models asked for, then the one with fewest jobs of ours."""
    tools = offer.tools.get(spec.service_required, ())
    wanted = _models_of(spec)
    return min(tools, key=lambda tool: (-len(wanted & _installed(tool)), in_use.get(tool.key, 0)), default=None)


def _add(tools: dict[str, list[Tool]], tool: Tool) -> None:
    for name in tool.connector.provides:
        tools.setdefault(name, []).append(tool)


def _serves(service: Service, gpu: Gpu | None) -> bool:
    return service.gpu_index is None or (gpu is not None and service.gpu_index == gpu.index)


def _capability(services: tuple[str, ...], models: tuple[str, ...], means: Means) -> Capability:
    gpu = means.gpu
    return Capability(
        services=services,
        models=models,
        gpu_memory_gb=_gb(gpu.memory_total_mb) if gpu else 0.0,
        gpu_model=gpu.name if gpu else None,
        cpu_cores=means.cpu_cores,
        ram_gb=_gb(means.memory_total_mb),
        labels=means.labels,
        custom=means.custom,
        customers=means.customers,
    )


def _gb(mb: int | None) -> float:
    """Return GB as people say them; figures of one decimal do not change with every reading."""
    return round(mb / _MB_PER_GB, 1) if mb else 0.0


def _models_of(spec: JobSpec) -> set[str]:
    named = set(spec.requirements.models)
    if isinstance(spec.payload, dict) and isinstance(model := spec.payload.get("model"), str):
        named.add(model)
    return {canonical_model_name(name) for name in named}


def _installed(tool: Tool) -> set[str]:
    return {canonical_model_name(model.name) for model in tool.service.models} if tool.service else set()
