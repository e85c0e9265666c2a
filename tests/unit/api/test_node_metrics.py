from muster.api.node_metrics import node_metrics
from muster.domain.gpu import Gpu
from muster.domain.node import Health, Node, NodeFacts, Resources
from muster.domain.worker import Worker, WorkerStatus
from muster.ids import NodeId, worker_id


def node(name: str, health: Health = Health.HEALTHY) -> Node:
    node_id = NodeId(name)
    return Node(
        facts=NodeFacts(node_id=node_id),
        health=health,
        resources=Resources(cpu_percent=12.5, memory_total_mb=2),
        gpus=(Gpu(index=0, memory_total_mb=1, temperature_c=61.0), Gpu(index=1, out_of_service="lost")),
        workers=(Worker(worker_id=worker_id(node_id, 0), index=0, status=WorkerStatus.IDLE),),
    )


def test_what_is_known_has_a_sample_and_what_is_not_has_none() -> None:
    lines = node_metrics([node("n1")], 10).splitlines()
    assert 'muster_node_up{node="n1"} 1.0' in lines
    assert 'muster_node_cpu_ratio{node="n1"} 0.125' in lines
    assert 'muster_node_memory_bytes{node="n1"} 2097152.0' in lines
    assert 'muster_gpu_memory_bytes{node="n1",gpu="0"} 1048576.0' in lines
    assert 'muster_gpu_temperature_celsius{node="n1",gpu="0"} 61.0' in lines
    assert 'muster_gpu_out_of_service{node="n1",gpu="1"} 1.0' in lines
    assert 'muster_workers{status="idle"} 1.0' in lines
    assert not any(
        line.startswith(("muster_gpu_utilization_ratio{", "muster_node_memory_used_bytes{")) for line in lines
    )


def test_of_a_node_that_is_not_heard_nothing_is_told_but_that() -> None:
    text = node_metrics([node("n1", Health.DEAD)], 10)
    assert [line for line in text.splitlines() if "n1" in line] == ['muster_node_up{node="n1"} 0.0']
    assert 'muster_workers{status="idle"} 0.0' in text


def test_however_many_nodes_there_are_the_series_are_bounded() -> None:
    nodes = [node(f"n{number:03}") for number in range(50)]
    text = node_metrics(nodes, 10)
    assert sum("node=" in line for line in text.splitlines()) == 10 * (1 + 2 + 2 + 3 - 1)
    assert "muster_nodes_without_series 40.0" in text
    assert 'muster_workers{status="idle"} 50.0' in text
