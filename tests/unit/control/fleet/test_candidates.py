import pytest

from muster.control.fleet.candidates import candidates_of, reachable_url
from muster.domain.gpu import Gpu, GpuOwner
from muster.domain.model import Model
from muster.domain.node import Health, Node, NodeFacts
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.ids import NodeId


def node(address: str | None = None, **fields: object) -> Node:
    facts = NodeFacts(node_id=NodeId("n"), address=address, pool="p", labels={"a": "b"})
    return Node(facts=facts, health=Health.HEALTHY, **fields)  # type: ignore[arg-type]  # a test's own shorthand


def service(**fields: object) -> Service:
    base: dict[str, object] = {
        "name": "llama",
        "connector": "llamacpp",
        "status": ServiceStatus.RUNNING,
        "url": "http://127.0.0.1:8080",
        "dialects": (Dialect.OPENAI,),
        "models": (Model(name="m:latest"),),
    }
    return Service(**(base | fields))  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("address", "url", "reachable"),
    [
        ("10.0.0.5", "http://127.0.0.1:8080", "http://10.0.0.5:8080"),
        ("10.0.0.5", "http://localhost", "http://10.0.0.5"),
        ("fd00::1", "http://[::1]:1/x", "http://[fd00::1]:1/x"),
        ("10.0.0.5", "http://gpu.lan:8080", "http://gpu.lan:8080"),
        (None, "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("127.0.0.1", "http://localhost:8080", "http://localhost:8080"),
    ],
)
def test_localhost_of_another_machine_is_that_machine(address: str | None, url: str, reachable: str) -> None:
    assert reachable_url(url, node(address)) == reachable


def test_a_service_becomes_a_candidate_under_its_models_plain_names() -> None:
    (candidate,) = candidates_of(node(services=(service(),)), late=True)
    assert candidate.key == "n/llama"
    assert candidate.late
    assert candidate.model("m")
    assert candidate.model("m:latest")
    assert candidate.model("other") is None
    assert (candidate.pool, candidate.labels) == ("p", {"a": "b"})


def test_a_service_that_nobody_can_talk_to_is_none() -> None:
    assert candidates_of(node(services=(service(url=None), service(dialects=()))), late=False) == ()


@pytest.mark.parametrize(
    ("gpus", "gpu_index", "free_mb"),
    [
        ((), None, None),
        (
            (Gpu(index=0, memory_total_mb=10, memory_used_mb=4), Gpu(index=1, memory_total_mb=10, memory_used_mb=1)),
            1,
            9,
        ),
        (
            (Gpu(index=0, memory_total_mb=10, memory_used_mb=4), Gpu(index=1, memory_total_mb=10, memory_used_mb=1)),
            None,
            15,
        ),
        ((Gpu(index=0, memory_total_mb=10), Gpu(index=1, memory_total_mb=10, memory_used_mb=1)), None, None),
    ],
)
def test_free_memory_is_unknown_unless_every_gpu_of_the_service_tells(
    gpus: tuple[Gpu, ...], gpu_index: int | None, free_mb: int | None
) -> None:
    (candidate,) = candidates_of(node(gpus=gpus, services=(service(gpu_index=gpu_index),)), late=False)
    assert candidate.memory_free_mb == free_mb


CARDS = (
    Gpu(index=0, memory_total_mb=100, memory_used_mb=60, out_of_service="it fell off the bus"),
    Gpu(
        index=1,
        memory_total_mb=100,
        memory_used_mb=70,
        owners=(
            GpuOwner(name="llama", memory_mb=30, service=True),
            GpuOwner(name="blender", memory_mb=25),
            GpuOwner(name="Xorg", memory_mb=None),
        ),
    ),
)


@pytest.mark.parametrize(
    ("gpu_index", "trouble", "free_mb", "others"),
    [
        (0, "it fell off the bus", 40, ()),
        (1, None, 30, (("blender", 25),)),
        (2, None, None, ()),
        (None, None, 30, (("blender", 25),)),
    ],
)
def test_a_gpu_out_of_service_counts_for_what_is_bound_to_it_only(
    gpu_index: int | None, trouble: str | None, free_mb: int | None, others: tuple[tuple[str, int], ...]
) -> None:
    (candidate,) = candidates_of(node(gpus=CARDS, services=(service(gpu_index=gpu_index),)), late=False)
    assert candidate.gpu_trouble == trouble
    assert candidate.memory_free_mb == free_mb
    assert candidate.memory_of_others == others
