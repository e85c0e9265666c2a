import asyncio
import sys
from typing import Any

import pytest
from structlog.testing import capture_logs

from muster.devices.nvml import NvmlProbe
from muster.domain.gpu import Gpu
from tests.unit.devices.fake_nvml import Card, FakeNvml

A40 = Gpu(
    index=0,
    name="A40",
    uuid="GPU-A40",
    memory_total_mb=46 * 1024,
    memory_used_mb=1024,
    utilization_percent=37.0,
    temperature_c=61.0,
    power_w=123.456,
)


def probe(nvml: Any, timeout_s: float = 30.0) -> NvmlProbe:
    return NvmlProbe(lambda: nvml, timeout_s=timeout_s)


async def test_every_card_is_read_with_its_own_memory() -> None:
    first, second = await probe(FakeNvml(Card("A40", 46), Card("T4", 15))).read()
    assert first == A40
    assert (second.index, second.name, second.memory_total_mb) == (1, "T4", 15 * 1024)


@pytest.mark.parametrize(
    ("question", "figure"),
    [
        ("nvmlDeviceGetMemoryInfo", "memory_used_mb"),
        ("nvmlDeviceGetUtilizationRates", "utilization_percent"),
        ("nvmlDeviceGetPowerUsage", "power_w"),
        ("nvmlDeviceGetTemperature", "temperature_c"),
        ("nvmlDeviceGetUUID", "uuid"),
    ],
)
async def test_a_figure_that_a_card_does_not_tell_is_unknown_and_the_rest_stands(question: str, figure: str) -> None:
    (gpu,) = await probe(FakeNvml(Card("A40", 46, silent=(question,)))).read()
    assert getattr(gpu, figure) is None
    assert gpu.name == "A40"


async def test_a_lost_card_keeps_its_name_and_the_others_their_figures() -> None:
    nvml = FakeNvml(Card("A40", 46), Card("T4", 15))
    nvidia = probe(nvml)
    await nvidia.read()
    nvml.cards[1].lost = True
    with capture_logs() as logs:
        first, second = await nvidia.read()
        await nvidia.read()
    assert first == A40
    assert (second.name, second.memory_total_mb, second.memory_used_mb) == ("T4", 15 * 1024, None)
    assert [entry["event"] for entry in logs] == ["gpu_lost"]


async def test_a_hanging_driver_costs_its_deadline_and_is_not_called_again() -> None:
    nvml = FakeNvml(Card("A40", 46))
    nvidia = probe(nvml)
    await nvidia.read()
    nvidia._timeout_s = 0.05
    nvml.answering.clear()
    with capture_logs() as logs:
        for _ in range(3):
            (gpu,) = await nvidia.read()
            assert (gpu.name, gpu.memory_total_mb, gpu.memory_used_mb, gpu.power_w) == ("A40", 46 * 1024, None, None)
    assert nvml.most_running == 1
    assert [entry["reason"] for entry in logs] == ["the driver did not answer within 0.05 s"]
    nvml.answering.set()
    nvidia._timeout_s = 30.0
    assert await nvidia.read() == (A40,)


async def test_a_reader_that_gives_up_leaves_the_reading_to_the_next() -> None:
    nvml = FakeNvml(Card("A40", 46))
    nvidia = probe(nvml)
    nvml.answering.clear()
    impatient = asyncio.create_task(nvidia.read())
    await asyncio.wait([impatient], timeout=0.05)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    nvml.answering.set()
    assert await nvidia.read() == (A40,)
    assert nvml.most_running == 1


async def test_without_a_driver_there_are_no_gpus_and_the_reason_is_said_once() -> None:
    nvml = FakeNvml()
    nvml.init_problem = "Driver Not Loaded"
    nvidia = probe(nvml)
    with capture_logs() as logs:
        assert await nvidia.read() == ()
        assert await nvidia.read() == ()
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("no_nvidia_gpus", "Driver Not Loaded")]


async def test_a_driver_that_comes_later_is_noticed() -> None:
    nvml = FakeNvml(Card("A40", 46))
    nvml.init_problem = "Driver Not Loaded"
    nvidia = probe(nvml)
    assert await nvidia.read() == ()
    nvml.init_problem = None
    assert await nvidia.read() == (A40,)


async def test_a_driver_that_is_replaced_is_set_up_again() -> None:
    nvml = FakeNvml(Card("A40", 46))
    nvidia = probe(nvml)
    await nvidia.read()
    nvml.count_problem = "Uninitialized"
    (gpu,) = await nvidia.read()
    assert (gpu.name, gpu.memory_used_mb) == ("A40", None)
    nvml.count_problem = None
    assert await nvidia.read() == (A40,)
    assert nvml.inits == 2


async def test_without_the_library_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it fails
    with capture_logs() as logs:
        assert await NvmlProbe().read() == ()
    assert logs[0]["event"] == "no_nvidia_gpus"


async def test_the_real_library_answers_on_any_machine() -> None:
    for gpu in await NvmlProbe().read():
        assert gpu.memory_total_mb is None or gpu.memory_total_mb > 0
