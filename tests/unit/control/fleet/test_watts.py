"""What a worker draws, as the gateway is told."""

from muster.app.door import watts_in
from muster.domain.gpu import Gpu
from tests.planes import PlaneUnderTest


async def test_what_a_worker_draws_is_what_its_node_said_last(plane: PlaneUnderTest) -> None:
    await plane.heartbeat("n", gpus=(Gpu(index=0, power_w=70.5),))
    watts = watts_in(plane.fleet, otherwise=5.0)
    assert [watts("n/engine"), watts("n/engine")] == [70.5, 70.5]

    await plane.heartbeat("n", seq=2, gpus=(Gpu(index=0, power_w=200.0),))
    assert watts("n/engine") == 200.0
    assert watts("gone/engine") == 5.0


async def test_where_no_power_is_known_the_setting_counts_if_there_is_one(plane: PlaneUnderTest) -> None:
    await plane.heartbeat("n", gpus=(Gpu(index=0),))

    assert watts_in(plane.fleet, otherwise=5.0)("n/engine") == 5.0
    assert watts_in(plane.fleet, otherwise=0.0)("n/engine") is None


async def test_of_many_workers_only_some_are_remembered(plane: PlaneUnderTest) -> None:
    await plane.heartbeat("n", gpus=(Gpu(index=0, power_w=70.5),))
    watts = watts_in(plane.fleet, otherwise=5.0)

    assert {watts(f"n/{number}") for number in range(5000)} == {70.5}
