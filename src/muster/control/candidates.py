"""From a node's record to what placement chooses among."""

from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

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
            draining=node.draining or service.draining or service.name in node.drained_services,
            pool=node.facts.pool,
            labels=node.facts.labels,
            slots=service.slots,
            slots_busy=service.slots_busy,
            memory_free_mb=_memory_mb(node, service, free=True),
            memory_total_mb=_memory_mb(node, service, free=False),
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


def _memory_mb(node: Node, service: Service, *, free: bool) -> int | None:
    """Return what the service says, else the sum over its GPUs: None if one figure is unknown, or without a GPU."""
    own_bytes = service.memory_free_bytes if free else service.memory_total_bytes
    if own_bytes is not None:
        return own_bytes // _BYTES_PER_MB
    gpus = [gpu for gpu in node.gpus if service.gpu_index in (None, gpu.index)]
    figures = [gpu.memory_free_mb if free else gpu.memory_total_mb for gpu in gpus]
    known = [figure for figure in figures if figure is not None]
    return sum(known) if figures and len(known) == len(figures) else None
