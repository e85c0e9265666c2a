"""From a node's record to what placement chooses among."""

from collections import Counter
from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

from muster.domain.gpu import Gpu
from muster.domain.model import canonical_model_name
from muster.domain.node import Node
from muster.domain.service import Service
from muster.placement.candidate import Candidate

_BYTES_PER_MB = 1024 * 1024
_URLS_MAX = 16_384
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def candidates_of(node: Node, *, late: bool) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            key=f"{node.node_id}/{service.name}",
            node_id=node.node_id,
            service=service.name,
            connector=service.connector,
            url=reachable_url(service.url, node),
            dialects=service.dialects,
            models={canonical_model_name(model.name): model for model in service.models},
            status=service.status,
            health=node.health,
            connected=node.connected,
            late=late,
            on_demand=service.on_demand,
            draining=node.draining or service.draining or service.name in node.drained_services,
            pool=node.facts.pool,
            labels=node.facts.labels,
            slots=service.slots,
            slots_busy=service.slots_busy,
            requests_waiting=service.requests_waiting,
            memory_free_mb=memory_mb(node, service, free=True),
            memory_total_mb=memory_mb(node, service, free=False),
            disk_free_mb=node.resources.disk_free_mb,
            memory_of_others=_memory_of_others(node, service),
            gpu_trouble=_gpu_trouble(node, service),
        )
        for service in node.services
        if service.url and service.dialects
    )


def reachable_url(url: str, node: Node) -> str:
    """Replace a loopback host by the node's own address: `localhost` means another machine to everybody else.

    A node that shares our process or host says so by having no other address.
    """
    return _reachable_url(url, node.facts.address)


@lru_cache(maxsize=_URLS_MAX)
def _reachable_url(url: str, address: str | None) -> str:
    """Each heartbeat asks for the same again."""
    parts = urlsplit(url)
    if parts.hostname not in _LOOPBACK or not address or address in _LOOPBACK:
        return url
    host = f"[{address}]" if ":" in address else address
    return urlunsplit(parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host))


def memory_mb(node: Node, service: Service, *, free: bool) -> int | None:
    """Return what the service says, else the sum over its GPUs: None if one figure is unknown, or without a GPU."""
    own_bytes = service.memory_free_bytes if free else service.memory_total_bytes
    if own_bytes is not None:
        return own_bytes // _BYTES_PER_MB
    gpus = gpus_of(node, service)
    figures = [gpu.memory_free_mb if free else gpu.memory_total_mb for gpu in gpus]
    known = [figure for figure in figures if figure is not None]
    return sum(known) if figures and len(known) == len(figures) else None


def _memory_of_others(node: Node, service: Service) -> tuple[tuple[str, int], ...]:
    """Return what processes from outside take of the memory of its GPUs: the free figure is without it."""
    used_mb: Counter[str] = Counter()
    for gpu in gpus_of(node, service):
        for owner in gpu.owners or ():
            if not owner.service and owner.memory_mb:
                used_mb[owner.name] += owner.memory_mb
    return tuple(used_mb.most_common())


def _gpu_trouble(node: Node, service: Service) -> str | None:
    """Return what is wrong with the GPU it is bound to. One that is bound to none may use another, or none."""
    if service.gpu_index is None:
        return None
    return next((gpu.out_of_service for gpu in node.gpus if gpu.index == service.gpu_index), None)


def gpus_of(node: Node, service: Service) -> list[Gpu]:
    """Return the GPU it is bound to, else all that are in service."""
    if service.gpu_index is not None:
        return [gpu for gpu in node.gpus if gpu.index == service.gpu_index]
    return [gpu for gpu in node.gpus if gpu.out_of_service is None]
