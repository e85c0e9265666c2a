"""Figures of each node and GPU for Prometheus, which keeps them for longer than we do.

Written as text at once: of a thousand nodes there are tens of thousands, and nobody is to wait for them.
"""

from collections.abc import Callable, Iterator, Sequence

from muster.domain.gpu import Gpu
from muster.domain.node import Node
from muster.domain.worker import WorkerStatus
from muster.registry.health import LOST
from muster.registry.workers import workers_of

_BYTES_PER_MB = 1024 * 1024

_OF_NODE: dict[str, tuple[str, Callable[[Node], float | None]]] = {
    "muster_node_cpu_ratio": ("How busy its processors are.", lambda node: _share(node.resources.cpu_percent)),
    "muster_node_memory_used_bytes": ("Memory in use.", lambda node: _bytes(node.resources.memory_used_mb)),
    "muster_node_memory_bytes": ("Memory in all.", lambda node: _bytes(node.resources.memory_total_mb)),
    "muster_node_disk_free_bytes": (
        "Free where Muster keeps its data.",
        lambda node: _bytes(node.resources.disk_free_mb),
    ),
}
_OF_GPU: dict[str, tuple[str, Callable[[Gpu], float | None]]] = {
    "muster_gpu_utilization_ratio": ("How busy it is.", lambda gpu: _share(gpu.utilization_percent)),
    "muster_gpu_memory_used_bytes": ("Its memory in use.", lambda gpu: _bytes(gpu.memory_used_mb)),
    "muster_gpu_memory_bytes": ("Its memory in all.", lambda gpu: _bytes(gpu.memory_total_mb)),
    "muster_gpu_temperature_celsius": ("How hot it is.", lambda gpu: gpu.temperature_c),
    "muster_gpu_power_watts": ("What it draws.", lambda gpu: gpu.power_w),
    "muster_gpu_out_of_service": ("1 while nothing is given to it.", lambda gpu: gpu.out_of_service is not None),
}


def node_metrics(nodes: Sequence[Node], nodes_max: int) -> str:
    """Tell of at most `nodes_max` nodes one by one, so that a fleet cannot fill whoever keeps it.

    A figure that is not known has no sample, and neither has one of a node that is not heard.
    """
    told = nodes[:nodes_max]
    heard = [node for node in told if node.connected and node.health not in LOST]
    lines = [*_family("muster_workers", "Workers of nodes that are heard, by status.", _workers(nodes))]
    lines += _family(
        "muster_nodes_without_series", "Nodes too many to be told one by one.", [("", len(nodes) - len(told))]
    )
    heard_ids = {node.node_id for node in heard}
    up = [(f'{{node="{node.node_id}"}}', node.node_id in heard_ids) for node in told]
    lines += _family("muster_node_up", "1 while it is heard.", up)
    for name, (text, figure) in _OF_NODE.items():
        lines += _family(name, text, [(f'{{node="{node.node_id}"}}', figure(node)) for node in heard])
    gpus = [(f'{{node="{node.node_id}",gpu="{gpu.index}"}}', gpu) for node in heard for gpu in node.gpus]
    for name, (text, of_gpu) in _OF_GPU.items():
        lines += _family(name, text, [(labels, of_gpu(gpu)) for labels, gpu in gpus])
    return "".join(lines)


def _family(name: str, text: str, samples: Sequence[tuple[str, float | None]]) -> Iterator[str]:
    """Ids of nodes and what else stands in labels here need no quoting."""
    yield f"# HELP {name} {text}\n# TYPE {name} gauge\n"
    for labels, value in samples:
        if value is not None:
            yield f"{name}{labels} {float(value)}\n"


def _workers(nodes: Sequence[Node]) -> list[tuple[str, float | None]]:
    counts = dict.fromkeys(WorkerStatus, 0)
    for node in nodes:
        for found in workers_of(node):
            counts[found.status] += 1
    return [(f'{{status="{status.value}"}}', count) for status, count in counts.items()]


def _bytes(megabytes: int | None) -> int | None:
    return None if megabytes is None else megabytes * _BYTES_PER_MB


def _share(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 4)
