"""Services in cgroups: the kernel's own where this machine lets us, a folder that looks like them for the rest."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from muster.agent.limits import ServiceLimits
from muster.agent.services.cgroups import Cgroups
from muster.agent.services.supervisor import Supervisor
from muster.domain.service import ServiceStatus
from tests.cgroups import own_cgroup_root
from tests.integration.agent.conftest import Open
from tests.integration.agent.services import alive, still, web
from tests.integration.agent.supervisor_process import SupervisorProcess
from tests.waiting import eventually

LIMITS = ServiceLimits(cpu="200%", memory="1G")
NOBODY = 65_534


@pytest.fixture
def kernel() -> Iterator[Path]:
    with own_cgroup_root("services") as root:
        yield root


@pytest.fixture
def imitation(tmp_path: Path) -> Path:
    """Return a folder in which every file can be written, as in a cgroup that has all controllers."""
    root = tmp_path / "cgroup"
    root.mkdir()
    return root


async def test_a_service_runs_in_a_cgroup_of_its_own_with_all_it_starts(site: Open, kernel: Path) -> None:
    opened = site(web(), cgroups=Cgroups(kernel))
    await opened.supervisor.start()
    child = int(await opened.get("/flee"))
    below = Cgroups(kernel).path("web", "web") / "below"
    below.mkdir()
    (below / "cgroup.procs").write_text(str(child))
    pids = Cgroups(kernel).pids("web", "web")
    assert {opened.service().pid, child} <= set(pids)
    (figures,) = await opened.supervisor.figures()
    assert (figures.name, figures.group, figures.pid) == ("web", "web", opened.service().pid)
    assert figures.processes == len(pids)
    await opened.supervisor.stop()
    assert not alive(child)
    assert not (kernel / "muster.slice").exists()


async def test_instances_of_a_group_lie_beside_each_other(site: Open, kernel: Path) -> None:
    cgroups = Cgroups(kernel)
    opened = site(still("llama", per="gpu"), still("paint"), gpus=[0, 1], cgroups=cgroups)
    await opened.supervisor.start()
    assert cgroups.instances() == [("llama", "llama-gpu0"), ("llama", "llama-gpu1"), ("paint", "paint")]
    await opened.supervisor.restart("llama-gpu0")
    assert cgroups.pids("llama", "llama-gpu0") == [opened.service("llama-gpu0").pid]


async def test_a_crash_ends_what_fled_and_leaves_no_cgroup_behind(site: Open, kernel: Path) -> None:
    opened = site(web(restarts_max=0), cgroups=Cgroups(kernel))
    await opened.supervisor.start()
    child = int(await opened.get("/flee"))
    with suppress(aiohttp.ClientError):
        await opened.get("/crash")
    await eventually(lambda: opened.service().status is ServiceStatus.FAILED)
    assert not alive(child)
    assert not (kernel / "muster.slice").exists()


async def test_cgroups_go_when_no_agent_comes_back(tmp_path: Path, kernel: Path) -> None:
    with SupervisorProcess(tmp_path, still(), adopt_within_s=0.2, cgroup_root=str(kernel)) as agent:
        assert Cgroups(kernel).pids("still", "still") == [agent.pids["still"]]
        agent.kill()
        await eventually(lambda: not (kernel / "muster.slice").exists())
        assert not alive(agent.pids["still"])


async def test_limits_that_the_kernel_cannot_enforce_are_told_and_the_service_runs(site: Open, kernel: Path) -> None:
    if "memory" in (kernel / "cgroup.controllers").read_text().split():
        pytest.skip("this kernel can enforce them")
    opened = site(still(limits=LIMITS), cgroups=Cgroups(kernel))
    await opened.supervisor.start()
    assert opened.service("still").status is ServiceStatus.RUNNING
    (told,) = opened.told("limits_not_enforced")
    path = kernel / "muster.slice" / "still" / "still"
    assert told["cgroup"] == str(path)
    assert told["reason"] == (
        f"cgroup {path} cannot have cpu.max = 200000 100000: the controller cpu is not there; "
        f"cgroup {path} cannot have memory.max = 1073741824: the controller memory is not there"
    )
    assert Cgroups(kernel).pids("still", "still") == [opened.service("still").pid]


async def test_limits_that_must_be_enforced_keep_a_service_from_starting(site: Open) -> None:
    opened = site(still(limits=LIMITS, restarts_max=0), limits_required=True)
    await opened.supervisor.start()
    assert opened.service("still").status is ServiceStatus.FAILED
    assert opened.service("still").error == (
        "its limits cannot be enforced: no cgroup was given to this agent, so cpu.max, memory.max cannot be set"
    )


async def test_without_limits_a_service_needs_no_cgroup(site: Open) -> None:
    opened = site(still(), limits_required=True)
    await opened.supervisor.start()
    assert opened.kinds() == ["service_started"]


async def test_a_cgroup_that_somebody_else_is_in_is_left_alone(site: Open, kernel: Path) -> None:
    cgroups = Cgroups(kernel)
    stranger = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        path, _ = cgroups.make("still", "still", ServiceLimits())
        assert path is not None
        (path / "cgroup.procs").write_text(str(stranger.pid))
        opened = site(still(), cgroups=cgroups)
        await opened.supervisor.start()
        assert opened.service("still").status is ServiceStatus.RUNNING
        assert f"is in use by pid {stranger.pid}" in opened.told("cgroup_missing")[0]["reason"]
        await opened.supervisor.stop()
        assert alive(stranger.pid)
    finally:
        stranger.kill()
        await stranger.wait()


def test_what_is_empty_goes_when_an_agent_starts(kernel: Path) -> None:
    cgroups = Cgroups(kernel)
    cgroups.make("llama", "llama-gpu7", ServiceLimits())
    (cgroups.path("llama", "llama-gpu7") / "below").mkdir()
    cgroups.prepare()
    assert cgroups.instances() == []
    assert [path.name for path in kernel.iterdir() if path.is_dir()] == []


def test_an_agent_leaves_the_root_that_it_was_given_so_that_controllers_can_act_below(kernel: Path) -> None:
    program = f"""
import os, pathlib, subprocess
root = pathlib.Path({str(kernel)!r})
(root / "cgroup.procs").write_text(str(os.getpid()))
helper = subprocess.Popen(["sleep", "600"])
from muster.agent.services.cgroups import Cgroups
Cgroups(root).prepare()
print((root / "cgroup.procs").read_text().split(), len((root / "agent" / "cgroup.procs").read_text().split()))
helper.kill()
helper.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[] 2", done.stderr


def test_a_cgroup_is_ours_when_systemd_says_so_and_not_because_we_are_root(kernel: Path) -> None:
    program = f"""
import os, pathlib
from muster.agent.services.cgroups import find_cgroups
root = pathlib.Path({str(kernel)!r})
(root / "cgroup.procs").write_text(str(os.getpid()))
print(find_cgroups("") and "ours")
os.setxattr(root, "trusted.delegate", b"1")
cgroups = find_cgroups("")
print(cgroups.root == root)
cgroups.prepare()
print(find_cgroups("").root == root, find_cgroups("none"), find_cgroups("/x").slice)
"""
    if os.geteuid() != 0:
        pytest.skip("only root can mark a cgroup as systemd does")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split("\n")[:3] == ["None", "True", "True None /x/muster.slice"], done.stderr


def test_who_may_not_make_cgroups_hears_which_one_it_was(kernel: Path) -> None:
    """As a user that has no rights in there."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    program = f"""
import json, os, pathlib
from muster.agent.limits import ServiceLimits
from muster.agent.services.cgroups import Cgroups, find_cgroups
os.setgid({NOBODY}); os.setuid({NOBODY})
cgroups = Cgroups(pathlib.Path({str(kernel)!r}))
cgroups.prepare()
path, problems = cgroups.make("llama", "llama", ServiceLimits(cpu="50%"))
print(json.dumps([path, problems, find_cgroups("") is None]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    path, problems, none_found = json.loads(done.stdout)
    assert (path, none_found) == (None, True)
    assert problems == [f"cgroup {kernel}/muster.slice/llama/llama cannot be made: Permission denied"]


class ClosedCgroups(Cgroups):
    """They can be made and not entered."""

    def make(self, group: str, instance: str, limits: ServiceLimits) -> tuple[Path | None, list[str]]:
        path, problems = super().make(group, instance, limits)
        assert path is not None
        (path / "cgroup.procs").mkdir()
        return path, problems


async def test_a_cgroup_that_cannot_be_entered_is_told(site: Open, imitation: Path) -> None:
    opened = site(still(limits=LIMITS), cgroups=ClosedCgroups(imitation))
    await opened.supervisor.start()
    assert opened.service("still").status is ServiceStatus.RUNNING
    assert "still/still cannot be entered" in opened.told("limits_not_enforced")[0]["reason"]
    await opened.supervisor.stop()
    refused = site(still(limits=LIMITS, restarts_max=0), cgroups=ClosedCgroups(imitation / "2"), limits_required=True)
    await refused.supervisor.start()
    assert refused.service("still").status is ServiceStatus.FAILED
    assert "cannot be entered" in (refused.service("still").error or "")


async def test_an_end_for_too_much_memory_is_called_that(site: Open, imitation: Path) -> None:
    opened = site(still(restarts_max=0), cgroups=Cgroups(imitation))
    await opened.supervisor.start()
    path = imitation / "muster.slice" / "still" / "still"
    (path / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    os.kill(opened.service("still").pid or 0, signal.SIGKILL)
    await eventually(lambda: opened.service("still").status is ServiceStatus.FAILED)
    assert "more memory than its limit allows" in (opened.service("still").error or "")


def test_controllers_are_let_through_one_by_one(imitation: Path) -> None:
    (imitation / "cgroup.controllers").write_text("cpuset cpu memory\n")
    (imitation / "cgroup.subtree_control").write_text("memory\n")
    Cgroups(imitation).prepare()
    assert (imitation / "cgroup.subtree_control").read_text() == "+cpu"


async def is_busy(supervisor: Supervisor) -> bool:
    (figures,) = await supervisor.figures()
    return figures.processes == 2 and (figures.cpu_percent or 0) > 5


async def test_a_busy_service_is_seen_to_be_busy(site: Open, kernel: Path) -> None:
    """By its own time and by that of a child; once by the kernel's count for the cgroup, once by our own."""
    busy = "while :; do :; done"
    for cgroups in (Cgroups(kernel), None):
        opened = site(still("still", "sh", "-c", f"({busy}) & exec sleep 600"), cgroups=cgroups)
        await opened.supervisor.start()

        (first,) = await opened.supervisor.figures()
        assert first.cpu_percent is None
        await eventually(lambda: is_busy(opened.supervisor))  # noqa: B023 - it is over before there is another
        await opened.supervisor.stop()
