from muster.devices.simulated import SimulatedGpus


async def test_as_many_as_asked_for_are_there_marked_and_of_unknown_use() -> None:
    gpus = await SimulatedGpus(3).read()
    assert [gpu.index for gpu in gpus] == [0, 1, 2]
    assert all(gpu.simulated and gpu.name == "Simulated GPU" for gpu in gpus)
    assert {gpu.memory_used_mb for gpu in gpus} == {None}
    assert len({gpu.uuid for gpu in gpus}) == 3


async def test_none_are_none() -> None:
    assert await SimulatedGpus(0).read() == ()
