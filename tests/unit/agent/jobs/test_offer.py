from typing import Any

import pytest

from muster.agent.jobs.offer import Means, Offer, choose_tool, make_offer
from muster.domain.gpu import Gpu
from muster.domain.job import Requirements
from muster.domain.model import Model
from muster.domain.service import Service, ServiceStatus
from tests.unit.agent.connectors import FakeConnector
from tests.unit.agent.queues import spec

WORK = FakeConnector("simulation")
CHAT = FakeConnector("chat", needs_service=True)
BOTH = {"simulation": WORK, "chat": CHAT}


def chat(name: str, *models: str, status: ServiceStatus = ServiceStatus.RUNNING, **more: Any) -> Service:
    return Service(
        name=name, connector="chat", status=status, models=tuple(Model(name=model) for model in models), **more
    )


def test_what_needs_no_service_is_always_offered_and_comes_first() -> None:
    assert make_offer(BOTH, [], Means()).capability.services == ("simulation",)
    offer = make_offer(BOTH, [chat("llama", "smol:latest", "big")], Means())
    assert offer.capability.services == ("simulation", "chat")
    assert offer.capability.models == ("big", "smol")


def test_a_service_that_does_not_run_is_not_offered_but_shown() -> None:
    offer = make_offer(BOTH, [chat("llama", "smol", status=ServiceStatus.UNHEALTHY)], Means())
    assert offer.capability.services == ("simulation",)
    assert offer.capability.models == ()
    assert offer.statuses == {"simulation": "running", "chat": "unhealthy"}


def test_one_running_service_of_a_kind_makes_the_kind_run() -> None:
    dead = chat("a", status=ServiceStatus.FAILED)
    for services in ([dead, chat("b")], [chat("b"), dead]):
        assert make_offer(BOTH, services, Means()).statuses["chat"] == "running"


def test_a_worker_offers_the_services_of_its_own_gpu_and_of_the_node() -> None:
    services = [chat("gpu0", "m0", gpu_index=0), chat("gpu1", "m1", gpu_index=1), chat("node", "m2")]
    assert make_offer(BOTH, services, Means(gpu=Gpu(index=1))).capability.models == ("m1", "m2")
    assert make_offer(BOTH, services, Means()).capability.models == ("m2",)


def test_a_service_without_a_connector_here_is_left_alone() -> None:
    assert make_offer({"simulation": WORK}, [chat("llama")], Means()).statuses == {"simulation": "running"}


def test_sizes_are_told_in_gigabytes_and_what_is_unknown_counts_as_nothing() -> None:
    gpu = Gpu(index=0, name="RTX 4090", memory_total_mb=24_564)
    capability = make_offer({}, [], Means(gpu=gpu, cpu_cores=8, memory_total_mb=64_216)).capability
    assert (capability.gpu_memory_gb, capability.gpu_model) == (24.0, "RTX 4090")
    assert (capability.cpu_cores, capability.ram_gb) == (8, 62.7)
    assert make_offer({}, [], Means(gpu=Gpu(index=0))).capability.gpu_memory_gb == 0.0


@pytest.mark.parametrize(
    ("payload", "requirements", "in_use", "chosen"),
    [
        ({}, Requirements(), {}, "a"),
        ({}, Requirements(), {"a": 1}, "b"),
        ({"model": "m2"}, Requirements(), {"b": 3}, "b"),
        ({"model": "m2:latest"}, Requirements(), {}, "b"),
        ("no object", Requirements(models=("m2",)), {}, "b"),
        ({"model": 3}, Requirements(), {}, "a"),
    ],
)
def test_the_service_with_the_model_is_chosen_then_the_less_busy(
    payload: Any, requirements: Requirements, in_use: dict[str, int], chosen: str
) -> None:
    offer = make_offer(BOTH, [chat("a", "m1"), chat("b", "m2")], Means())
    tool = choose_tool(offer, spec("job", service="chat", payload=payload, requirements=requirements), in_use)
    assert tool is not None
    assert tool.key == chosen


def test_nothing_is_chosen_where_nothing_fits() -> None:
    assert choose_tool(Offer(), spec("job", service="chat"), {}) is None
