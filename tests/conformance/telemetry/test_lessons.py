"""What went wrong in the telemetry that this one replaces, each as it showed; others stand where their row stands."""

from pathlib import Path

import psutil

from muster.devices.machine_gpus import MachineGpus
from muster.devices.nvidia_smi import NvidiaSmi
from muster.devices.nvml import NvmlProbe
from muster.ids import NodeId
from muster.settings import Settings
from muster.wire import Deregistration
from tests.conformance.telemetry.conftest import Queen, worker_of
from tests.conformance.telemetry.test_driver import Node
from tests.integration.devices.test_programs import GPUS, Program
from tests.waiting import eventually


async def test_lesson_1_an_nvidia_smi_that_sleeps_stops_no_telemetry(tmp_path: Path) -> None:
    """A real program that hangs is killed at its deadline, and meanwhile every tick comes when it is due."""
    smi = Program(tmp_path, "nvidia-smi")
    smi.answers(GPUS)
    nvidia = NvidiaSmi(str(smi.path), timeout_s=30.0)
    probe = MachineGpus(NvmlProbe(is_there=lambda: False), nvidia)
    node = Node(probe, 2, every_s=0.02)
    await node.gpus.take_stock()
    await eventually(node.told_of_its_gpus)
    smi.hangs()
    nvidia._program._timeout_s = 2.0
    asked, told = len(smi.pids), len(node.sent)
    await node.report.start()
    await eventually(lambda: len(smi.pids) > asked)
    (hanging,) = smi.pids[asked:]
    await eventually(lambda: len(node.sent) > told + 2)
    assert psutil.pid_exists(hanging), "these ticks did not wait for it"
    assert all(len(message.workers) == 2 for message in node.sent)
    await eventually(lambda: not psutil.pid_exists(hanging))
    await node.report.stop()
    await probe.close()


async def test_lesson_4_workers_of_a_hive_that_was_killed_are_found_by_nobody(queen: Queen) -> None:
    await queen.hear("hive-1", worker_of(1, model="m"))
    await queen.hear("hive-2", worker_of(2, model="m"))
    queen.plane.clock.advance(90)
    await queen.hear("hive-2", worker_of(2, model="m"))
    queen.plane.fleet.tick()
    assert await queen.pids(model="m") == [2]
    assert await queen.pids(idle="true") == [2]


def test_lesson_4_silence_is_looked_for_often() -> None:
    assert Settings().job_sweep_s <= 60


async def test_lesson_4_a_node_that_left_leaves_no_workers_behind(queen: Queen) -> None:
    await queen.hear("hive-1", worker_of(1, model="m"))
    node = queen.plane.fleet.node(NodeId("hive-1"))
    await queen.plane.ingest.deregister(Deregistration(node_id=node.node_id, boot_id=node.boot_id))
    assert await queen.workers() == []


async def test_lesson_a_failed_read_is_not_an_idle_worker(queen: Queen) -> None:
    """0 % is what a broken read looked like, and every worker with it idle."""
    await queen.hear("hive-1", worker_of(1) | {"gpu_util_pct": None, "vram_mb": None, "total_vram_mb": None})
    await queen.hear("hive-2", worker_of(2) | {"gpu_known": False})
    assert await queen.pids(idle="true") == []
    assert await queen.pids(free_vram_mb=0) == []


async def test_lesson_workers_online_counts_workers(queen: Queen) -> None:
    await queen.hear("hive-1", *(worker_of(pid, instance=str(pid)) for pid in (1, 2, 3)))
    async with queen.listening() as stream:
        event = await stream.next("queen")
    assert (event["workers_online"], event["hives_online"]) == (3, 1)


async def test_lesson_two_hives_that_share_a_pool_of_names_are_kept_apart(queen: Queen) -> None:
    """The same group and instance on two hives are two workers."""
    await queen.hear("hive-1", worker_of(1))
    await queen.hear("hive-2", worker_of(2))
    assert sorted(worker["worker_id"] for worker in await queen.workers()) == ["hive-1-worker-0", "hive-2-worker-0"]
