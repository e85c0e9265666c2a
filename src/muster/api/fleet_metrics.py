"""The fleet as figures: what is read from the records of nodes, and only as far as it is written out."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from muster import metrics as m
from muster.api.views import worker_status
from muster.domain.gpu import Gpu
from muster.domain.node import Health, Node
from muster.metrics import Family, Metric, Sample

_MB = 1024 * 1024

OfNode = Callable[[Node], float | None]
OfGpu = Callable[[Gpu], float | None]


def fleet_metrics(nodes: Sequence[Node], now_ms: int) -> Iterator[Metric]:
    health = Counter(node.health for node in nodes)
    workers = Counter(worker_status(node, worker).value for node in nodes for worker in node.workers)
    services = Counter(service.status.value for node in nodes for service in node.services)
    yield m.NODES.of({(state.value,): health[state] for state in Health})
    yield Metric(m.NODE_HEALTH, (("", (node.node_id, node.health.value), 1) for node in nodes))
    yield _of_nodes(m.NODE_HEARD, nodes, lambda node: (now_ms - node.last_seen_ms) / 1000)
    yield m.WORKERS.of({(status,): count for status, count in workers.items()})
    yield m.SERVICES.of({(status,): count for status, count in services.items()})
    for family, of_node in _OF_NODE.items():
        yield _of_nodes(m.FAMILIES[family], nodes, of_node)
    yield Metric(m.GPU_INFO, (("", (node.node_id, str(gpu.index), gpu.name), 1) for node in nodes for gpu in node.gpus))
    for family, of_gpu in _OF_GPU.items():
        yield _of_gpus(m.FAMILIES[family], nodes, of_gpu)


def _of_nodes(family: Family, nodes: Sequence[Node], value_of: OfNode) -> Metric:
    def samples() -> Iterator[Sample]:
        for node in nodes:
            if (value := value_of(node)) is not None:
                yield "", (node.node_id,), value

    return Metric(family, samples())


def _of_gpus(family: Family, nodes: Sequence[Node], value_of: OfGpu) -> Metric:
    def samples() -> Iterator[Sample]:
        for node in nodes:
            for gpu in node.gpus:
                if (value := value_of(gpu)) is not None:
                    yield "", (node.node_id, str(gpu.index)), value

    return Metric(family, samples())


def _in_bytes(megabytes: int | None) -> int | None:
    return None if megabytes is None else megabytes * _MB


def _as_ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


_OF_NODE: dict[str, OfNode] = {
    m.NODE_DRAINING.name: lambda node: int(node.draining),
    m.NODE_CPU.name: lambda node: _as_ratio(node.resources.cpu_percent),
    m.NODE_MEMORY.name: lambda node: _in_bytes(node.resources.memory_total_mb),
    m.NODE_MEMORY_USED.name: lambda node: _in_bytes(node.resources.memory_used_mb),
    m.NODE_DISK.name: lambda node: _in_bytes(node.resources.disk_total_mb),
    m.NODE_DISK_FREE.name: lambda node: _in_bytes(node.resources.disk_free_mb),
}
_OF_GPU: dict[str, OfGpu] = {
    m.GPU_IN_SERVICE.name: lambda gpu: int(gpu.out_of_service is None),
    m.GPU_UTILIZATION.name: lambda gpu: _as_ratio(gpu.utilization_percent),
    m.GPU_MEMORY.name: lambda gpu: _in_bytes(gpu.memory_total_mb),
    m.GPU_MEMORY_USED.name: lambda gpu: _in_bytes(gpu.memory_used_mb),
    m.GPU_TEMPERATURE.name: lambda gpu: gpu.temperature_c,
    m.GPU_POWER.name: lambda gpu: gpu.power_w,
}
