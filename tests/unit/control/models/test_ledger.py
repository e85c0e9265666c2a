"""What is in which memory, from the nodes' own figures; and what counts as used."""

from typing import Any

import pytest

from muster.control.models.ledger import Ledger
from muster.control.models.uses import Busy
from muster.domain.gpu import Gpu, GpuOwner
from muster.domain.model import Model
from muster.domain.node import Health, NodeFacts, Resources
from muster.domain.residency import ModelPolicy, ModelRule
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.ids import JobId, NodeId, WorkerId
from muster.placement.residency import Room
from tests.planes import PlaneUnderTest

MB = 1024 * 1024
COLD = Model(name="m:latest", resident=False, size_bytes=1000 * MB)
WARM = Model(name="w", resident=True, size_bytes=500 * MB)
KEY = "n/ollama"


def ollama(*models: Model, **more: Any) -> Service:
    defaults: dict[str, Any] = {"name": "ollama", "connector": "ollama", "status": ServiceStatus.RUNNING}
    return Service(**(defaults | {"models": models, "on_demand": True} | more))


def gpu(index: int = 0, used_mb: int = 6000, owners: tuple[GpuOwner, ...] | None = ()) -> Gpu:
    return Gpu(index=index, memory_total_mb=8000, memory_used_mb=used_mb, owners=owners)


def owner(name: str, memory_mb: int) -> GpuOwner:
    return GpuOwner(name=name, memory_mb=memory_mb, service=True)


async def node(plane: PlaneUnderTest, *services: Service, policy: ModelPolicy | None = None, **more: Any) -> None:
    facts = NodeFacts(node_id=NodeId("n"), models=policy or ModelPolicy())
    await plane.heartbeat("n", facts=facts, services=services, **more)


def ledger(plane: PlaneUnderTest) -> Ledger:
    return plane.models.ledger


def room(plane: PlaneUnderTest, model: str = "m", *, patient: bool = True) -> Room:
    (found,) = ledger(plane).rooms(model, patient=patient)
    return found


async def test_a_place_is_where_the_model_is_on_disk_and_can_be_loaded(plane: PlaneUnderTest) -> None:
    by_itself = ollama(COLD, name="by-itself", on_demand=False)
    await node(plane, ollama(COLD, WARM), by_itself)
    assert room(plane).key == KEY
    assert ledger(plane).rooms("w") == [], "it is there already"
    assert ledger(plane).rooms("other") == []
    assert list(ledger(plane).names()) == ["m", "w"]


@pytest.mark.parametrize(
    ("rule", "before_mb", "needs_mb"),
    [
        (ModelRule(name="m", memory_mb=700), 900, 700),
        (ModelRule(name="m"), 900, 900),
        (ModelRule(name="m"), None, 1200),
    ],
)
async def test_what_it_needs_is_said_or_remembered_or_guessed(
    plane: PlaneUnderTest, rule: ModelRule, before_mb: int | None, needs_mb: int
) -> None:
    policy = ModelPolicy(rules=(rule,))
    if before_mb is not None:
        await node(plane, ollama(Model(name="m", resident=True, memory_mb=before_mb)), policy=policy)
        plane.models.uses.look(plane.fleet.nodes())
    await node(plane, ollama(COLD), policy=policy, seq=2)
    assert room(plane).needs_mb == needs_mb


async def test_a_model_of_unknown_size_needs_nobody_knows_how_much(plane: PlaneUnderTest) -> None:
    await node(plane, ollama(Model(name="m", resident=False)))
    assert room(plane).needs_mb is None


@pytest.mark.parametrize(
    ("gpus", "host", "free_mb"),
    [
        ((gpu(),), Resources(), 2000),
        ((gpu(), gpu(1, 8000)), Resources(), 2000),
        ((Gpu(index=0),), Resources(memory_total_mb=9000, memory_used_mb=0), None),
        ((), Resources(memory_total_mb=9000, memory_used_mb=4000), 5000),
        ((), Resources(), None),
    ],
)
async def test_memory_is_that_of_the_gpus_or_the_machines(
    plane: PlaneUnderTest, gpus: tuple[Gpu, ...], host: Resources, free_mb: int | None
) -> None:
    await node(plane, ollama(COLD), gpus=gpus, resources=host)
    assert room(plane).free_mb == free_mb


@pytest.mark.parametrize(
    ("share", "owners", "free_mb"),
    [
        (("ollama", "comfyui"), (owner("comfyui", 5000), owner("other", 500)), 7000),
        (("ollama",), (owner("comfyui", 5000),), 2000),
        (("comfyui",), (owner("comfyui", 5000),), 2000),
        (("ollama", "comfyui"), None, None),
    ],
)
async def test_what_lets_go_for_its_turn_counts_as_free(
    plane: PlaneUnderTest, share: tuple[str, ...], owners: tuple[GpuOwner, ...] | None, free_mb: int | None
) -> None:
    comfy = Service(name="comfyui", connector="comfyui", status=ServiceStatus.RUNNING)
    policy = ModelPolicy(share_gpu=share)
    await node(plane, ollama(COLD), comfy, policy=policy, gpus=(gpu(owners=owners),))
    assert room(plane).free_mb == free_mb


async def test_what_is_in_memory_takes_what_was_measured_or_else_a_guess(plane: PlaneUnderTest) -> None:
    told = Model(name="told", resident=True, memory_mb=111)
    measured = ollama(WARM, name="llama", connector="llamacpp")
    await node(plane, ollama(told, WARM, COLD), measured, gpus=(gpu(owners=(owner("llama", 777),)),))
    taken = {(each.service, each.model): each.memory_mb for each in room(plane).residents}
    assert taken == {("ollama", "told"): 111, ("ollama", "w"): 600, ("llama", "w"): 777}


async def test_only_what_shares_the_memory_can_make_room(plane: PlaneUnderTest) -> None:
    here, there = ollama(COLD, gpu_index=0), ollama(WARM, name="there", gpu_index=1)
    own = ollama(WARM, name="own", on_demand=False)
    await node(plane, here, there, own, ollama(WARM, name="any"), gpus=(gpu(), gpu(1)))
    assert [each.service for each in room(plane).residents] == ["any"]


@pytest.mark.parametrize(
    ("service", "fields", "against"),
    [
        (ollama(COLD), {}, None),
        (ollama(COLD, status=ServiceStatus.STOPPED, managed=True), {}, None),
        (ollama(COLD, status=ServiceStatus.STOPPED), {}, "has its service stopped"),
        (ollama(COLD, draining=True), {"reason": "yielding to a game"}, "takes no work: yielding to a game"),
        (ollama(COLD), {"status": Health.UNHEALTHY}, "is unhealthy"),
    ],
)
async def test_a_place_that_takes_nothing_says_why(
    plane: PlaneUnderTest, service: Service, fields: dict[str, Any], against: str | None
) -> None:
    await node(plane, service, **fields)
    assert room(plane).against == against


async def test_a_node_that_is_late_or_drains_loads_nothing(plane: PlaneUnderTest) -> None:
    await node(plane, ollama(COLD))
    plane.fleet.carry_out(plane.fleet.book.set_draining(NodeId("n"), plane.clock.now_ms(), draining=True))
    assert room(plane).against == "is draining"
    plane.clock.advance(31.0)
    assert room(plane).against == "has missed heartbeats"


# --- uses -------------------------------------------------------------------------------------------------------------


async def used_ms(plane: PlaneUnderTest, model: str = "w") -> int:
    plane.models.uses.look(plane.fleet.nodes())
    return plane.models.uses.of(KEY, model).used_ms


@pytest.mark.parametrize("by", ["request", "another gateway", "job", "nobody"])
async def test_what_is_at_work_is_used_now(plane: PlaneUnderTest, by: str) -> None:
    worker = Worker(worker_id=WorkerId("n-worker-0"), index=0, status=WorkerStatus.BUSY, current_jobs=(JobId("j"),))
    await node(plane, ollama(WARM, COLD), workers=(worker,) if by == "job" else ())
    before_ms = await used_ms(plane)
    plane.clock.advance(1.0)
    plane.in_use += [(KEY, "w")] if by == "request" else []
    plane.in_flight |= {KEY: 1} if by in {"request", "another gateway"} else {}
    assert await used_ms(plane) - before_ms == (0 if by == "nobody" else 1000)
    (resident,) = room(plane).residents
    assert resident.busy == (by in {"request", "another gateway"})
    assert not room(plane, patient=False).residents[0].busy


async def test_of_two_models_of_a_service_that_is_at_work_which_our_gateway_asks(plane: PlaneUnderTest) -> None:
    await node(plane, ollama(WARM, Model(name="v", resident=True), COLD))
    plane.in_use, plane.in_flight = [(KEY, "w")], {KEY: 1}
    assert {each.model: each.busy for each in room(plane).residents} == {"w": True, "v": False}


async def test_what_comes_into_memory_is_used_now(plane: PlaneUnderTest) -> None:
    await node(plane, ollama(WARM))
    first_ms = await used_ms(plane)
    await node(plane, ollama(Model(name="w", resident=False)), seq=2)
    plane.clock.advance(5.0)
    assert await used_ms(plane) == first_ms
    await node(plane, ollama(WARM), seq=3)
    assert await used_ms(plane) == first_ms + 5000


def test_slots_say_of_a_service_of_one_model_that_it_is_at_work() -> None:
    assert Busy((), {}).has(KEY, ollama(WARM, COLD, slots_busy=1), WARM)
    assert not Busy((), {}).has(KEY, ollama(WARM, slots_busy=0), WARM)
