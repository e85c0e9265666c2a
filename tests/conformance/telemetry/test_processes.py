"""Processes as the plan for testing telemetry describes them, row by row: spawn, limits, collect, enumerate, failures.

What the kernel of this machine cannot do in its cgroups (limits, on many) is held to what is written there.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.agent.limits import ServiceLimits
from muster.agent.services.cgroups import Cgroups
from muster.agent.services.figures import ProcessMonitor
from muster.domain.service import ServiceStatus
from muster.errors import InvalidInput, NotFound, UpstreamFailed
from tests.cgroups import own_cgroup_root
from tests.integration.agent.conftest import Open, site, soon
from tests.integration.agent.services import alive, still
from tests.waiting import eventually, eventually_sync

__all__ = ["site", "soon"]  # fixtures


@pytest.fixture
def kernel() -> Iterator[Path]:
    with own_cgroup_root("telemetry") as root:
        yield root


@pytest.fixture
def imitation(tmp_path: Path) -> Path:
    root = tmp_path / "cgroup"
    root.mkdir()
    return root


async def test_spawn_creates_a_cgroup_and_returns_a_pid(site: Open, kernel: Path) -> None:
    opened = site(still("llm"), cgroups=Cgroups(kernel))
    await opened.supervisor.start()
    pid = opened.service("llm").pid
    assert str(pid) in (kernel / "muster.slice" / "llm" / "llm" / "cgroup.procs").read_text().split()
    assert alive(pid)


async def test_spawn_applies_the_cpu_and_the_memory_limit(site: Open, imitation: Path) -> None:
    opened = site(still("llm", limits=ServiceLimits(cpu="200%", memory="1G")), cgroups=Cgroups(imitation))
    await opened.supervisor.start()
    path = imitation / "muster.slice" / "llm" / "llm"
    assert (path / "cpu.max").read_text() == "200000 100000"
    assert (path / "memory.max").read_text() == "1073741824"
    assert (path / "cgroup.procs").read_text() == str(opened.service("llm").pid)


def test_spawn_with_a_bad_limit_is_refused_in_its_name() -> None:
    with pytest.raises(InvalidInput, match="CPU limit"):
        ServiceLimits(cpu="much").cgroup_files()


async def test_spawn_of_a_bad_binary_is_an_error(site: Open) -> None:
    opened = site(still("llm", "/no/such/binary", restarts_max=0))
    await opened.supervisor.start()
    service = opened.service("llm")
    assert (service.status, service.pid) == (ServiceStatus.FAILED, None)
    assert service.error == "there is no command '/no/such/binary' on this machine"


async def test_collect_reads_what_an_instance_uses(site: Open, kernel: Path) -> None:
    cgroups = Cgroups(kernel)
    opened = site(still("llm", sys.executable, "-c", "while True: pass", per="gpu"), gpus=[0], cgroups=cgroups)
    await opened.supervisor.start()
    monitor = ProcessMonitor(cgroups)
    found = monitor.collect("llm", "llm-gpu0")
    assert (found.pid, found.group, found.name) == (opened.service("llm-gpu0").pid, "llm", "llm-gpu0")
    assert (found.rss_mb or 0) > 0
    assert found.cpu_percent is None  # of one reading nobody can tell
    await eventually(lambda: (monitor.collect("llm", "llm-gpu0").cpu_percent or 0) > 5)


@pytest.mark.parametrize(
    ("words", "model"), [(["--model", "llama-3"], "llama-3"), (["--model=llama-3"], "llama-3"), ([], None)]
)
async def test_collect_parses_the_command_line(site: Open, kernel: Path, words: list[str], model: str | None) -> None:
    opened = site(still("llm", "sh", "-c", "sleep 600", "llm", *words), cgroups=Cgroups(kernel))
    await opened.supervisor.start()
    assert ProcessMonitor(Cgroups(kernel)).collect("llm", "llm").model == model
    (told,) = await opened.supervisor.figures()
    assert told.model == model


async def test_collect_calculates_the_uptime(site: Open, kernel: Path) -> None:
    opened = site(still("llm"), cgroups=Cgroups(kernel))
    await opened.supervisor.start()
    monitor = ProcessMonitor(Cgroups(kernel))
    assert (monitor.collect("llm", "llm").uptime_s or 0) <= 5
    await eventually(lambda: (monitor.collect("llm", "llm").uptime_s or 0) >= 1)


def test_lesson_a_process_whose_name_has_spaces_is_read_like_any_other(imitation: Path, tmp_path: Path) -> None:
    program = tmp_path / "an ) engine 1 2"
    program.symlink_to("/bin/sleep")
    path = Cgroups(imitation).path("llm", "8080")
    path.mkdir(parents=True)
    with subprocess.Popen([program, "600"]) as process:
        (path / "cgroup.procs").write_text(f"{process.pid}\n")
        found = ProcessMonitor(Cgroups(imitation)).collect("llm", "8080")
        process.kill()
    assert found.pid == process.pid
    assert 0 <= (found.uptime_s or 0) <= 5


def test_collect_of_a_dead_process_is_an_error(kernel: Path) -> None:
    cgroups = Cgroups(kernel)
    path, _ = cgroups.make("llm", "8080", ServiceLimits())
    assert path is not None
    process = subprocess.Popen(["sleep", "600"])
    (path / "cgroup.procs").write_text(str(process.pid))
    monitor = ProcessMonitor(cgroups)
    assert monitor.collect("llm", "8080").pid == process.pid
    process.kill()
    process.wait()
    with pytest.raises(UpstreamFailed, match="no process of llm/8080 runs"):
        monitor.collect("llm", "8080")


async def test_enumerate_walks_the_tree(site: Open, kernel: Path) -> None:
    opened = site(still("llm", per="gpu"), still("comfy"), gpus=[0, 1], cgroups=Cgroups(kernel))
    await opened.supervisor.start()
    monitor = ProcessMonitor(Cgroups(kernel))
    assert [found.name for found in monitor.collect_all()] == ["comfy", "llm-gpu0", "llm-gpu1"]
    assert [found.name for found in monitor.collect_group("llm")] == ["llm-gpu0", "llm-gpu1"]
    assert [(found.group, found.name) for found in monitor.collect_group("comfy")] == [("comfy", "comfy")]
    assert monitor.collect_group("nobody") == []
    for group, instance in [("llm", "nobody"), ("nobody", "llm-gpu0")]:
        with pytest.raises(NotFound, match=f"no instance '{instance}' in the group '{group}'"):
            monitor.collect(group, instance)


def test_an_empty_tree_has_nobody(kernel: Path) -> None:
    assert ProcessMonitor(Cgroups(kernel)).collect_all() == []


async def test_partial_failure_one_alive_and_one_dead_are_one_result(site: Open, kernel: Path) -> None:
    cgroups = Cgroups(kernel)
    opened = site(still("llm"), cgroups=cgroups)
    await opened.supervisor.start()
    cgroups.make("llm", "dead", ServiceLimits())
    assert [found.name for found in ProcessMonitor(cgroups).collect_all()] == ["llm"]


@pytest.mark.parametrize("count", [10, 100])
def test_bench_of_many_workers_each_is_collected(imitation: Path, count: int) -> None:
    """How long it takes is measured by `bench.telemetry`."""
    cgroups = Cgroups(imitation)
    for number in range(count):
        path = cgroups.path("llm", f"{number:03}")
        path.mkdir(parents=True)
        (path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    assert [found.name for found in ProcessMonitor(cgroups).collect_all()] == [f"{n:03}" for n in range(count)]


async def test_without_cgroups_services_run_without_limits_and_nobody_is_enumerated(site: Open) -> None:
    opened = site(still("llm", limits=ServiceLimits(cpu="50%")))
    await opened.supervisor.start()
    assert opened.service("llm").status is ServiceStatus.RUNNING
    assert "cpu.max cannot be set" in opened.told("limits_not_enforced")[0]["reason"]
    assert ProcessMonitor(None).collect_all() == []
    assert [found.name for found in await opened.supervisor.figures()] == ["llm"]


def test_a_cgroup_that_may_not_be_made_is_named(tmp_path: Path) -> None:
    """A file stands where its group should be, which stops root as well."""
    (tmp_path / "muster.slice").write_text("")
    path, problems = Cgroups(tmp_path).make("llm", "8080", ServiceLimits())
    assert path is None
    assert problems == [f"cgroup {tmp_path}/muster.slice/llm/8080 cannot be made: Not a directory"]


async def test_a_service_whose_cgroup_may_not_be_made_runs_unmonitored_by_it(site: Open, tmp_path: Path) -> None:
    (tmp_path / "muster.slice").write_text("")
    opened = site(still("llm"), cgroups=Cgroups(tmp_path))
    await opened.supervisor.start()
    pid = opened.service("llm").pid
    assert alive(pid)
    assert "muster.slice/llm/llm cannot be made" in opened.told("cgroup_missing")[0]["reason"]
    assert [found.pid for found in await opened.supervisor.figures()] == [pid]


def test_collecting_goes_on_while_processes_come_and_go(imitation: Path) -> None:
    """Those that vanish between being listed and being read are left out, whatever the moment."""
    cgroups = Cgroups(imitation)
    path = cgroups.path("llm", "mine")
    path.mkdir(parents=True)
    (path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    monitor = ProcessMonitor(cgroups)
    for number in range(5):
        gone = cgroups.path("llm", f"gone-{number}")
        gone.mkdir()
        with subprocess.Popen(["true"]) as process:
            (gone / "cgroup.procs").write_text(f"{process.pid}\n")
            names = {found.name for found in monitor.collect_all()}
            assert "mine" in names
        eventually_sync(lambda: [found.name for found in monitor.collect_all()] == ["mine"])
