"""Figures from a made /proc, so that it can be as odd as the real one sometimes is."""

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from muster.agent.services.cgroups import Cgroups
from muster.agent.services.figures import ProcessMonitor, Watched, model_in
from muster.agent.services.keeper import Service
from muster.errors import UpstreamFailed
from tests.waiting import eventually_sync

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGES_PER_MB = 1_048_576 // os.sysconf("SC_PAGE_SIZE")


class Machine:
    """Its processes, its cgroups and its time are what the test says."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.proc.mkdir()
        self.cgroups = Cgroups(folder / "cgroup")
        self.now_s = 1000.0
        self.monitor = ProcessMonitor(self.cgroups, self.proc, lambda: self.now_s)

    def process(
        self,
        pid: int,
        parent: int = 1,
        *,
        state: str = "S",
        session: int | None = None,
        cpu_s: float = 0.0,
        rss_mb: int = 10,
        read: int | None = None,
        command: str = "",
        name: str = "python3",
    ) -> None:
        folder = self.proc / str(pid)
        folder.mkdir(exist_ok=True)
        group = pid if session is None else session
        ticks = round(cpu_s * TICKS_PER_S)
        numbers = [parent, group, group, *[0] * 7, ticks, 0, 0, 0, 20, 0, 1, 0, 5 * TICKS_PER_S, 0]
        fields = [state, *map(str, numbers), str(rss_mb * PAGES_PER_MB)]
        (folder / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
        (folder / "cmdline").write_text(command.replace(" ", "\0"))
        if read is not None:
            (folder / "io").write_text(f"rchar: 1\nread_bytes: {read}\nwrite_bytes: {2 * read}\n")

    def put(self, group: str, instance: str, *pids: int) -> Path:
        path = self.cgroups.path(group, instance)
        path.mkdir(parents=True, exist_ok=True)
        (path / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        return path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


LLAMA = Watched(name="llama", group="llama", pid=10)


def test_lesson_children_count_and_others_do_not(machine: Machine) -> None:
    machine.process(10, name="a (b) c) d")
    machine.process(11, 10, session=10)
    machine.process(12, 11, session=12)
    machine.process(13, 1, session=10)
    machine.process(99, 1, rss_mb=500)
    (figures,) = machine.monitor.read([LLAMA])
    assert (figures.processes, figures.rss_mb) == (4, 40.0)


def test_who_belongs_to_whom_is_looked_for_now_and_then_and_how_they_do_each_time(machine: Machine) -> None:
    machine.process(10)
    machine.process(11, 10)
    assert [figures.processes for figures in machine.monitor.read([LLAMA])] == [2]
    machine.process(12, 10)
    machine.process(11, 10, rss_mb=100)
    machine.now_s += 1
    (figures,) = machine.monitor.read([LLAMA])
    assert (figures.processes, figures.rss_mb) == (2, 110.0)
    machine.now_s += 5
    assert [figures.processes for figures in machine.monitor.read([LLAMA])] == [3]


def test_lesson_rates_are_those_since_the_reading_before(machine: Machine) -> None:
    machine.process(10, cpu_s=5.0, read=1000)
    machine.process(11, 10, cpu_s=1.0, read=0)
    (first,) = machine.monitor.read([LLAMA])
    assert (first.cpu_percent, first.read_bytes_s, first.write_bytes_s) == (None, None, None)
    machine.now_s += 10
    machine.process(10, cpu_s=10.0, read=6000)
    machine.process(11, 10, cpu_s=11.0, read=0)
    (second,) = machine.monitor.read([LLAMA])
    assert (second.cpu_percent, second.read_bytes_s, second.write_bytes_s) == (150.0, 500, 1000)
    machine.now_s += 0.01
    assert machine.monitor.read([LLAMA]) == (second,)


def test_the_time_of_a_child_that_is_gone_is_not_counted_as_less_than_nothing(machine: Machine) -> None:
    machine.process(10, cpu_s=1.0)
    machine.process(11, 10, cpu_s=100.0)
    machine.monitor.read([LLAMA])
    machine.now_s += 10
    machine.process(11, 10, state="Z")
    (figures,) = machine.monitor.read([LLAMA])
    assert (figures.cpu_percent, figures.processes) == (None, 1)


def test_the_next_process_of_a_service_is_not_compared_with_the_one_before(machine: Machine) -> None:
    machine.process(10, cpu_s=100.0)
    machine.monitor.read([LLAMA])
    machine.now_s += 10
    machine.process(20, cpu_s=1.0)
    (figures,) = machine.monitor.read([Watched(name="llama", group="llama", pid=20)])
    assert figures.cpu_percent is None


def test_the_kernels_count_for_a_cgroup_is_taken_where_there_is_one(machine: Machine) -> None:
    machine.process(10, cpu_s=1.0)
    machine.process(12, 1)
    path = machine.put("llama", "llama", 10, 12)
    watched = Watched(name="llama", group="llama", pid=10, cgroup=path)
    (path / "cpu.stat").write_text("usage_usec 1000000\nuser_usec 1\n")
    machine.monitor.read([watched])
    machine.now_s += 1
    (path / "cpu.stat").write_text("usage_usec 1250000\nuser_usec 1\n")
    (figures,) = machine.monitor.read([watched])
    assert (figures.cpu_percent, figures.processes) == (25.0, 2)


def test_what_may_not_be_read_is_unknown_and_costs_nothing_else(machine: Machine) -> None:
    machine.process(10, read=5)
    machine.process(11, 10)  # tells nothing of what it reads
    machine.monitor.read([LLAMA])
    machine.now_s += 10
    (figures,) = machine.monitor.read([LLAMA])
    assert (figures.read_bytes_s, figures.cpu_percent, figures.rss_mb) == (None, 0.0, 20.0)


def test_a_process_that_vanishes_costs_only_its_own_figures(machine: Machine) -> None:
    machine.process(10)
    machine.process(20)
    (machine.proc / "30").mkdir()
    (machine.proc / "31").mkdir()
    (machine.proc / "31" / "stat").write_text("")
    watched = [Watched(name=f"s{pid}", group="s", pid=pid) for pid in (30, 10, 31, 99, 20)]
    assert [figures.name for figures in machine.monitor.read(watched)] == ["s10", "s20"]


def test_lesson_one_alive_and_one_dead_are_one_result(machine: Machine) -> None:
    machine.process(10)
    machine.put("llama", "one", 10)
    machine.put("llama", "two", 11)
    machine.put("llama", "three").joinpath("cgroup.procs").write_text("garbage\n")
    assert [figures.name for figures in machine.monitor.collect_all()] == ["one"]
    with pytest.raises(UpstreamFailed, match="no process of llama/two runs"):
        machine.monitor.collect("llama", "two")


def test_the_first_process_of_an_instance_is_the_one_the_others_come_from(machine: Machine) -> None:
    machine.process(30, 1)
    machine.process(10, 30)
    machine.put("llama", "one", 10, 30)
    assert machine.monitor.collect("llama", "one").pid == 30


def test_a_model_is_found_behind_a_shell(machine: Machine) -> None:
    machine.process(10, command="sh -c run")
    machine.process(11, 10, command="engine --model smollm2 --port 1")
    assert machine.monitor.read([LLAMA])[0].model == "smollm2"


@pytest.mark.parametrize(
    ("command", "model"),
    [
        ("serve --model m.gguf --port 1", "m.gguf"),
        ("serve --model=m.gguf", "m.gguf"),
        ("serve --model=", None),
        ("serve --model", None),
        ("serve --models m", None),
        ("serve", None),
    ],
)
def test_a_model_is_what_the_command_line_says(command: str, model: str | None) -> None:
    assert model_in(command.split()) == model


def test_where_there_is_no_proc_figures_come_from_elsewhere(tmp_path: Path) -> None:
    now_s = itertools.count(1.0)
    monitor = ProcessMonitor(None, tmp_path / "proc", lambda: next(now_s))
    watched = [
        Watched(name="me", group="me", pid=os.getpid()),
        Watched(name="nobody", group="me", pid=2**22 - 1),
    ]
    monitor.read(watched[:1])
    (figures,) = monitor.read(watched[:1])
    assert (figures.rss_mb or 0) > 5
    assert figures.cpu_percent is not None
    assert monitor.read(watched[1:]) == ()
    assert monitor.collect_all() == []


def test_where_there_is_no_proc_the_group_is_ended() -> None:
    child = subprocess.Popen(["sh", "-c", "sleep 600 & echo up; wait"], stdout=subprocess.PIPE, start_new_session=True)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        order = {"name": "s", "keep_s": 0.0, "stop_s": 0.0, "cgroup": None, "note": None}
        service = Service(order, child.pid, "scope")
        assert service.force({}) == [child.pid]
        assert child.stdout.read() == b""  # the sleeper had it open, too
    eventually_sync(lambda: service.force({}) == [])
