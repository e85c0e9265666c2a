"""`nvidia-smi` and `rocm-smi` as they are run for real: programs that answer, fail, and hang."""

import asyncio
from pathlib import Path

import psutil
import pytest

from muster.devices import bounded
from muster.devices.machine_gpus import MachineGpus
from muster.devices.nvidia_smi import NvidiaSmi
from muster.devices.nvml import NvmlProbe
from muster.devices.rocm_smi import RocmSmi
from muster.domain.gpu import Gpu, GpuFault, GpuOwner
from muster.errors import MusterError, UpstreamTimeout
from tests.clocks import ManualClock
from tests.waiting import eventually

GPUS = """\
0, NVIDIA A40, GPU-a, 00000000:0A:00.0, 535.54, 46068, 1234, 37, 61, 123.46, 300.00, 1740, 0x4, 2, 0
1, NVIDIA A40, GPU-b, 00000000:0B:00.0, 535.54, 46068, 0, [N/A], 40, [N/A], [N/A], [N/A], 0x1, [N/A], [N/A]
"""
FAILS = "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9"


class Program:
    """A script in place of a program, and how often and with which pid it ran."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self._runs = folder / f"{name}.runs"

    def does(self, script: str) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(f"#!/bin/sh\necho $$ >>{self._runs}\n{script}\n")
        fresh.chmod(0o755)
        fresh.rename(self.path)

    def answers(self, gpus: str, processes: str = "") -> None:
        self.does(
            f"case $1 in\n--query-gpu=*) cat <<'END'\n{gpus}END\n;;\n"
            f"--query-compute-apps=*) cat <<'END'\n{processes}END\n;;\nesac"
        )

    def hangs(self) -> None:
        self.does("exec sleep 600")

    @property
    def pids(self) -> list[int]:
        return [int(pid) for pid in self._runs.read_text().split()] if self._runs.exists() else []


@pytest.fixture
def smi(tmp_path: Path) -> Program:
    return Program(tmp_path, "nvidia-smi")


def probe(program: Program, timeout_s: float = 30.0, clock: ManualClock | None = None) -> NvidiaSmi:
    return NvidiaSmi(str(program.path), timeout_s=timeout_s, clock=clock)


async def test_several_gpus_are_read_with_their_processes(smi: Program) -> None:
    smi.answers(GPUS, "GPU-b, 7, 300, /usr/bin/blender\n")
    found = await probe(smi).read()
    assert found is not None
    first, second = found
    assert (first.memory_total_mb, first.memory_used_mb, first.owners) == (46_068, 1_234, ())
    assert (second.utilization_percent, second.power_w, second.ecc_uncorrected) == (None, None, None)
    assert second.owners == (GpuOwner(name="blender", pids=(7,), memory_mb=300),)


async def test_an_older_one_is_asked_for_what_it_knows(smi: Program) -> None:
    rows = "\n".join(",".join(line.split(",")[:10]) for line in GPUS.splitlines())
    smi.does(
        "case $1 in *clocks_throttle*) echo 'Field \"clocks_throttle_reasons.active\" is not a valid field to query.';"
        f" exit 2;; --query-gpu=*) cat <<'END'\n{rows}\nEND\n;; *) exit 1;; esac"
    )
    nvidia = probe(smi)
    found = await nvidia.read()
    assert found is not None
    assert [(gpu.memory_used_mb, gpu.throttled, gpu.owners) for gpu in found] == [(1_234, None, None), (0, None, None)]
    assert await nvidia.read() == found
    assert len(smi.pids) == 5  # what it does not know is not asked again


async def test_one_that_finds_no_driver_finds_nothing(smi: Program) -> None:
    smi.does(FAILS)
    assert await probe(smi).read() is None


async def test_no_program_is_nothing(smi: Program) -> None:
    assert await probe(smi).read() is None


async def test_a_driver_that_fails_later_leaves_its_gpus_unread(smi: Program) -> None:
    smi.answers(GPUS)
    nvidia = probe(smi)
    before = await nvidia.read()
    smi.does(FAILS)
    assert before is not None
    assert await nvidia.read() == tuple(gpu.without_figures(GpuFault.SILENT) for gpu in before)
    smi.path.unlink()
    assert await nvidia.read() is None


async def test_one_that_hangs_is_ended_at_its_deadline_and_let_be_for_a_while(smi: Program, clock: ManualClock) -> None:
    smi.hangs()
    nvidia = probe(smi, 0.3, clock)
    with pytest.raises(UpstreamTimeout, match=r"did not answer within 0\.3 s"):
        await nvidia.read()
    assert not any(psutil.pid_exists(pid) for pid in smi.pids)
    with pytest.raises(UpstreamTimeout, match="did not answer"):
        await nvidia.read()
    assert len(smi.pids) == 1
    clock.advance(1.1)
    smi.answers(GPUS)
    nvidia._program._timeout_s = 30.0
    before = await nvidia.read()
    assert before is not None
    smi.hangs()
    nvidia._program._timeout_s = 0.3
    for _ in range(3):
        assert await nvidia.read() == tuple(gpu.without_figures(GpuFault.SILENT) for gpu in before)
    assert len(smi.pids) == 4


async def test_a_reader_that_gives_up_leaves_no_process(smi: Program) -> None:
    smi.hangs()
    reading = asyncio.create_task(probe(smi).read())
    (pid,) = await eventually(lambda: smi.pids)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert not psutil.pid_exists(pid)


async def test_beside_one_that_cannot_be_ended_no_second_one_is_begun(
    smi: Program, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs in the kernel takes no signal; this one is spared it."""
    smi.hangs()
    monkeypatch.setattr(bounded, "_AFTER_KILL_S", 0.05)
    nvidia = probe(smi, 0.3, clock)
    with monkeypatch.context() as patched:
        patched.setattr(asyncio.subprocess.Process, "kill", lambda _: None)
        with pytest.raises(UpstreamTimeout):
            await nvidia.read()
    (pid,) = smi.pids
    clock.advance(1.1)
    assert await nvidia.read() is None  # refused: nothing was begun
    assert smi.pids == [pid]
    psutil.Process(pid).kill()
    await eventually(lambda: nvidia._program._ending._stuck is not None and nvidia._program._ending._stuck.returncode)
    smi.answers(GPUS)
    nvidia._program._timeout_s = 30.0
    assert len(await nvidia.read() or ()) == 2


async def test_what_cannot_be_started_says_so(tmp_path: Path) -> None:
    with pytest.raises(MusterError, match="cannot be started"):
        await bounded.BoundedProgram(1.0, ManualClock()).run(str(tmp_path / "nothing"))


# --- AMD -------------------------------------------------------------------------------------------------------------


async def test_amds_gpus_are_read_and_what_fails_or_hangs_leaves_them_unread(tmp_path: Path) -> None:
    rocm = Program(tmp_path, "rocm-smi")
    amd = RocmSmi(str(rocm.path))
    assert await amd.read() is None
    rocm.does("echo 'ERROR: no driver'; exit 2")
    assert await amd.read() is None
    rocm.does("""echo '{"card0": {"Card series": "Radeon", "VRAM Total Memory (B)": "1048576"}}'""")
    assert await amd.read() == (Gpu(index=0, name="Radeon", memory_total_mb=1, owners=()),)
    rocm.does("echo '{broken'")
    silent = (Gpu(index=0, name="Radeon", memory_total_mb=1, fault=GpuFault.SILENT),)
    assert await amd.read() == silent
    assert await amd.read() == silent


async def test_an_amd_driver_that_hangs_from_the_start_is_not_the_same_as_none(tmp_path: Path) -> None:
    rocm = Program(tmp_path, "rocm-smi")
    rocm.hangs()
    with pytest.raises(UpstreamTimeout):
        await RocmSmi(str(rocm.path), timeout_s=0.3).read()


# --- what there is ---------------------------------------------------------------------------------------------------


class Machine:
    """A machine whose programs come and go; its library is never there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nvidia = Program(folder, "nvidia-smi")
        self.amd = Program(folder, "rocm-smi")
        self.clock = ManualClock()
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        self.gpus = MachineGpus(NvmlProbe(clock=self.clock, is_there=lambda: False), clock=self.clock)

    async def names(self) -> list[tuple[int, str]]:
        self.clock.advance(2)  # what came or went is looked for every other second
        return [(gpu.index, gpu.name) for gpu in await self.gpus.read()]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


async def test_gpus_of_several_makers_are_numbered_one_after_the_other(machine: Machine) -> None:
    assert await machine.names() == []
    machine.nvidia.answers(GPUS)
    machine.amd.does("""echo '{"card0": {"Card series": "Radeon"}}'""")
    assert await machine.names() == [(0, "NVIDIA A40"), (1, "NVIDIA A40"), (2, "Radeon")]
    machine.nvidia.path.unlink()
    assert await machine.names() == [(0, "Radeon")]


async def test_a_program_that_finds_nothing_is_asked_seldom(machine: Machine) -> None:
    machine.nvidia.does(FAILS)
    for _ in range(3):
        assert await machine.names() == []
    assert len(machine.nvidia.pids) == 1
    machine.nvidia.answers(GPUS)
    machine.clock.advance(61)
    assert len(await machine.names()) == 2


async def test_the_real_machine_is_read_whatever_it_has() -> None:
    gpus = MachineGpus()
    try:
        for gpu in await gpus.read():
            assert gpu.memory_total_mb is None or gpu.memory_total_mb > 0
    finally:
        await gpus.close()
