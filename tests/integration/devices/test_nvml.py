"""NVML as it is called for real: by a helper process, through the library's own symbols."""

import asyncio
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from muster.devices import bounded
from muster.devices.nvml import NvmlProbe, library_is_there
from muster.domain.gpu import Gpu, GpuFault, GpuOwner
from muster.errors import UpstreamFailed, UpstreamTimeout
from tests.clocks import ManualClock
from tests.integration.devices.made_nvml import MadeNvml
from tests.waiting import eventually


async def read(probe: NvmlProbe) -> tuple[Gpu, ...]:
    gpus = await probe.read()
    assert gpus is not None
    return gpus


async def test_every_card_is_read_with_all_that_it_tells(driver: MadeNvml, probe: NvmlProbe) -> None:
    driver.cards = [
        {"total": 24_576, "used": 5_000, "util": 37, "temp": 61, "power": 123_456, "limit": 350_000, "clock": 1_500}
        | {"throttle": 0x44, "ecc_corrected": 2, "ecc": 0},
        {"total": 16_384, "used": 0},
    ]
    driver.save()
    first, second = await read(probe)
    assert first == Gpu(
        index=0,
        name="Made GPU",
        uuid="GPU-made-0",
        pci="00000000:0a:00.0",
        driver="999.1",
        memory_total_mb=24_576,
        memory_used_mb=5_000,
        utilization_percent=37.0,
        temperature_c=61.0,
        power_w=123.456,
        power_limit_w=350.0,
        clock_mhz=1_500,
        throttled=("power_cap", "hardware_thermal"),
        ecc_corrected=2,
        ecc_uncorrected=0,
        owners=(),
    )
    assert (second.index, second.memory_total_mb, second.memory_used_mb) == (1, 16_384, 0)
    unknown = (
        second.utilization_percent,
        second.temperature_c,
        second.power_w,
        second.throttled,
        second.ecc_uncorrected,
    )
    assert unknown == (None,) * 5


async def test_a_card_that_tells_nothing_is_still_listed(driver: MadeNvml, probe: NvmlProbe) -> None:
    driver.cards[1] = {"silent": 1}
    driver.save()
    first, second = await read(probe)
    assert first.memory_used_mb == 5_000
    assert second == Gpu(index=1, driver="999.1")


async def test_an_old_driver_without_some_functions_tells_the_rest(tmp_path: Path) -> None:
    driver = MadeNvml(tmp_path, old_driver=True)
    driver.cards[0]["mig"] = 2
    driver.save()
    probe = NvmlProbe(command=driver.command, is_there=lambda: True)
    try:
        assert [gpu.memory_used_mb for gpu in await read(probe)] == [5_000, 5_000]
    finally:
        await probe.close()


async def test_processes_are_told_for_each_gpu_with_memory_and_use(driver: MadeNvml, probe: NvmlProbe) -> None:
    far = 4_000_001  # of no pid namespace that we see: the driver knows its name
    driver.processes = [(0, os.getpid(), 300, 20), (0, far, -1, 5), (1, os.getpid(), 700, 0)]
    driver.save()
    first, second = await read(probe)
    name = psutil.Process().name()
    assert first.owners == (
        GpuOwner(name=name, pids=(os.getpid(),), memory_mb=300, utilization_percent=20.0),
        GpuOwner(name=f"away-{far}", pids=(far,), memory_mb=None, utilization_percent=5.0),
    )
    assert second.owners == (GpuOwner(name=name, pids=(os.getpid(),), memory_mb=700, utilization_percent=0.0),)


async def test_a_process_that_nobody_knows_is_named_by_its_pid(driver: MadeNvml, probe: NvmlProbe) -> None:
    pid = 3_999_999
    driver.processes = [(0, pid, 1, 1)]
    driver.save()
    assert [owner.name for owner in (await read(probe))[0].owners or ()] == [f"pid {pid}"]


async def test_the_instances_of_a_split_card_are_gpus_of_their_own(driver: MadeNvml, probe: NvmlProbe) -> None:
    driver.cards[0] |= {"mig": 2}
    driver.lines = {"gpu 100 total": 9_856, "gpu 100 used": 10, "gpu 101 total": 9_856, "gpu 101 used": 4_000}
    driver.processes = [(101, os.getpid(), 3_900, 0)]
    driver.save()
    one, two, whole = await read(probe)
    assert [gpu.index for gpu in (one, two, whole)] == [0, 1, 2]
    assert [gpu.uuid for gpu in (one, two, whole)] == ["MIG-made-100", "MIG-made-101", "GPU-made-1"]
    assert [gpu.parent for gpu in (one, two, whole)] == ["GPU-made-0", "GPU-made-0", None]
    assert (two.memory_total_mb, two.memory_used_mb, two.temperature_c) == (9_856, 4_000, 61.0)
    assert one.owners == ()
    assert [owner.memory_mb for owner in two.owners or ()] == [3_900]


@pytest.mark.parametrize(("code", "fault"), [(15, GpuFault.LOST), (16, GpuFault.NEEDS_RESET)])
async def test_a_lost_card_keeps_its_name_and_the_others_their_figures(
    driver: MadeNvml, probe: NvmlProbe, code: int, fault: GpuFault
) -> None:
    before = await read(probe)
    driver.cards[1]["lost"] = code
    driver.save()
    first, second = await read(probe)
    assert first == before[0]
    assert second == before[1].without_figures(fault)
    del driver.cards[1]["lost"]
    driver.save()
    assert await read(probe) == before


async def test_errors_of_the_hardware_are_counted_and_those_of_programs_are_not(
    driver: MadeNvml, probe: NvmlProbe
) -> None:
    assert [gpu.xids for gpu in await read(probe)] == [0, 0]
    driver.xids = [(1, 31), (1, 79), (1, 48), (1, 13)]
    driver.save()
    assert [(gpu.xid, gpu.xids) for gpu in await read(probe)] == [(None, 0), (48, 2)]
    assert [(gpu.xid, gpu.xids) for gpu in await read(probe)] == [(None, 0), (48, 2)]


async def test_without_a_driver_nothing_is_asked_until_the_machine_changes(
    driver: MadeNvml, probe: NvmlProbe, clock: ManualClock
) -> None:
    driver.lines = {"init": 9}
    driver.save()
    with capture_logs() as logs:
        assert await probe.read() is None
        assert probe.helper_pid is None
        driver.lines = {}
        driver.save()
        assert await probe.read() is None
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("no_nvidia_gpus", "Driver Not Loaded")]
    probe.look_again()
    assert len(await read(probe)) == 2
    driver.lines = {"count_error": 18}
    driver.save()
    assert await probe.read() is None  # it was replaced under us
    driver.lines = {}
    driver.save()
    clock.advance(61)
    assert len(await read(probe)) == 2


async def test_without_the_library_no_helper_is_started(tmp_path: Path) -> None:
    probe = NvmlProbe(command=[str(tmp_path / "nothing")], is_there=lambda: False)
    assert await probe.read() is None
    assert library_is_there() in {True, False}


async def test_the_helper_says_itself_that_there_is_no_library(clock: ManualClock) -> None:
    probe = NvmlProbe(clock=clock, is_there=lambda: True)
    try:
        found = await probe.read()
    finally:
        await probe.close()
    assert found is None or all(gpu.memory_total_mb is None or gpu.memory_total_mb > 0 for gpu in found)


# --- drivers that hang -----------------------------------------------------------------------------------------------


class Hanging:
    """A driver that has answered, and hangs from now on."""

    def __init__(self, driver: MadeNvml, probe: NvmlProbe, clock: ManualClock) -> None:
        self.driver = driver
        self.probe = probe
        self.clock = clock

    def hang(self, symbol: str | None) -> None:
        self.driver.lines = {} if symbol is None else {"hang": symbol}
        self.driver.save()

    def be_impatient(self) -> None:
        self.probe._helper._answer_s = 0.05


@pytest.fixture
def hanging(driver: MadeNvml, probe: NvmlProbe, clock: ManualClock) -> Hanging:
    return Hanging(driver, probe, clock)


async def overdue(hanging: Hanging, seconds: float = 1.0) -> tuple[Gpu, ...]:
    """Read while a call hangs; the deadline passes meanwhile."""
    reading = asyncio.create_task(read(hanging.probe))
    await eventually(lambda: hanging.probe._helper._asked_s is not None)
    hanging.clock.advance(seconds)
    return await reading


@pytest.mark.parametrize("symbol", ["nvmlDeviceGetTemperature", "nvmlDeviceGetCount_v2", "nvmlEventSetWait_v2"])
async def test_a_call_that_hangs_ends_with_its_process(hanging: Hanging, symbol: str) -> None:
    before = await read(hanging.probe)
    pid = hanging.probe.helper_pid
    hanging.hang(symbol)
    hanging.be_impatient()
    with capture_logs() as logs:
        assert await overdue(hanging) == tuple(gpu.without_figures(GpuFault.SILENT) for gpu in before)
    assert hanging.probe.helper_pid is None
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert {"event": "gpu_helper_hung", "log_level": "warning", "pid": pid, "failures": 1} in logs


async def test_after_a_hang_a_new_helper_is_started_after_a_rest_that_grows(hanging: Hanging) -> None:
    before = await read(hanging.probe)
    hanging.hang("nvmlDeviceGetCount_v2")
    hanging.be_impatient()
    silent = await overdue(hanging)
    assert await read(hanging.probe) == silent  # it rests: nothing is started
    assert hanging.probe.helper_pid is None
    hanging.clock.advance(1.1)
    assert await overdue(hanging, 21.0) == silent  # the new one hangs as well
    assert hanging.probe.helper_pid is None
    hanging.clock.advance(1.1)
    assert await read(hanging.probe) == silent
    assert hanging.probe.helper_pid is None  # two seconds this time
    hanging.hang(None)
    hanging.clock.advance(1.0)
    hanging.probe._helper._answer_s = 30.0

    async def recovered() -> bool:
        return await read(hanging.probe) == before

    await eventually(recovered)


async def test_a_driver_that_hangs_from_the_start_is_not_the_same_as_none(driver: MadeNvml, clock: ManualClock) -> None:
    driver.lines = {"hang": "nvmlInitWithFlags"}
    driver.save()
    probe = NvmlProbe(command=driver.command, clock=clock, first_answer_s=0.2, is_there=lambda: True)
    reading = asyncio.create_task(probe.read())
    await eventually(lambda: probe.helper_pid is not None)
    clock.advance(1.0)
    with pytest.raises(UpstreamTimeout, match=r"did not answer within 0\.2 s"):
        await reading
    with pytest.raises(UpstreamFailed, match="did not answer"):
        await probe.read()
    assert probe.helper_pid is None


async def test_a_helper_that_cannot_be_killed_is_left_behind_and_no_second_one_is_started(
    hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs in the kernel takes no signal; this one is spared it."""
    await read(hanging.probe)
    pid = hanging.probe.helper_pid
    assert pid is not None
    hanging.hang("nvmlDeviceGetCount_v2")
    hanging.be_impatient()
    monkeypatch.setattr(bounded, "_AFTER_KILL_S", 0.05)
    kill: Any = asyncio.subprocess.Process.kill
    monkeypatch.setattr(asyncio.subprocess.Process, "kill", lambda _: None)
    with capture_logs() as logs:
        await overdue(hanging)
    assert [(entry["event"], entry["pid"]) for entry in logs if entry["event"] == "process_stuck"] == [
        ("process_stuck", pid)
    ]
    hanging.clock.advance(60)
    await read(hanging.probe)
    assert hanging.probe.helper_pid is None  # still the first one is there
    monkeypatch.setattr(asyncio.subprocess.Process, "kill", kill)
    psutil.Process(pid).kill()
    hanging.hang(None)
    hanging.probe._helper._answer_s = 30.0

    async def recovered() -> bool:
        return (await read(hanging.probe))[0].fault is None

    await eventually(recovered)


async def test_a_helper_that_is_killed_is_replaced(hanging: Hanging) -> None:
    before = await read(hanging.probe)
    pid = hanging.probe.helper_pid
    assert pid is not None
    psutil.Process(pid).kill()
    (first, _) = await read(hanging.probe)
    assert first.fault is GpuFault.SILENT
    hanging.clock.advance(1.1)

    async def recovered() -> bool:
        return await read(hanging.probe) == before

    await eventually(recovered)
    assert hanging.probe.helper_pid not in {None, pid}


async def test_a_reader_that_gives_up_does_not_leave_its_answer_to_the_next(hanging: Hanging) -> None:
    await read(hanging.probe)
    hanging.hang("nvmlDeviceGetCount_v2")
    impatient = asyncio.create_task(read(hanging.probe))
    await eventually(lambda: hanging.probe._helper._asked_s is not None)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    hanging.be_impatient()
    assert (await overdue(hanging))[0].fault is GpuFault.SILENT


async def test_the_helper_ends_when_nobody_asks_any_more(probe: NvmlProbe) -> None:
    await read(probe)
    pid = probe.helper_pid
    assert pid is not None
    await probe.close()
    assert not psutil.pid_exists(pid)


async def test_a_helper_that_cannot_be_started_is_told_of(tmp_path: Path) -> None:
    probe = NvmlProbe(command=[str(tmp_path / "nothing")], is_there=lambda: True)
    with pytest.raises(UpstreamFailed, match="cannot be started"):
        await probe.read()
