import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from muster.agent.gpus import owners
from muster.agent.gpus.owners import Services, Trace, Traces, join_owners, trace_process
from muster.domain.gpu import GpuOwner
from muster.domain.service import Service, ServiceStatus


def service(name: str, pid: int | None = None, url: str | None = None) -> Service:
    return Service(name=name, connector="chat", status=ServiceStatus.RUNNING, pid=pid, url=url)


def process(pid: int, name: str = "python3", memory_mb: int | None = 100, load: float | None = None) -> GpuOwner:
    return GpuOwner(name=name, pids=(pid,), memory_mb=memory_mb, utilization_percent=load)


def joined(*processes: GpuOwner, traces: Mapping[int, Trace], services: tuple[Service, ...]) -> tuple[GpuOwner, ...]:
    return join_owners(processes, Services(services), lambda process: traces.get(process.pids[0], Trace()))


def test_a_service_owns_the_processes_below_its_own() -> None:
    owners = joined(
        process(11, load=20.0),
        process(12, load=30.5),
        process(99, "blender", 4_200),
        traces={11: Trace(frozenset({11, 10})), 12: Trace(frozenset({12, 11, 10})), 99: Trace(frozenset({99, 98}))},
        services=(service("llama", 10), service("attached")),
    )
    assert owners == (
        GpuOwner(name="blender", pids=(99,), memory_mb=4_200),
        GpuOwner(name="llama", memory_mb=200, utilization_percent=50.5, service=True),
    )


@pytest.mark.parametrize(
    ("cgroup", "owner"),
    [
        ("/muster.slice/chat/llama", "llama"),
        ("/system.slice/muster.service/muster.slice/chat/llama/worker", "llama"),
        ("/muster.slice/chat/gone", "python3"),
        ("/elsewhere.slice/chat/llama", "python3"),
        ("", "python3"),
    ],
)
def test_a_service_owns_the_processes_of_its_cgroup(cgroup: str, owner: str) -> None:
    (found,) = joined(process(11), traces={11: Trace(frozenset({11}), cgroup)}, services=(service("llama", 10),))
    assert (found.name, found.service) == (owner, owner == "llama")


@pytest.mark.parametrize(
    ("url", "owner"),
    [
        ("http://127.0.0.1:11434", "ollama"),
        ("http://127.0.0.1:8080", "python3"),
        ("http://10.0.0.9:11434", "python3"),  # on another machine
        (None, "python3"),
    ],
)
def test_a_service_that_runs_without_us_owns_what_its_server_started(url: str | None, owner: str) -> None:
    traces = {11: Trace(frozenset({11, 10}), ports=frozenset({11434}))}
    (found,) = joined(process(11), traces=traces, services=(service("ollama", url=url),))
    assert found.name == owner


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    (found,) = joined(process(1, memory_mb=5), process(2, memory_mb=None), traces={}, services=())
    assert (found.memory_mb, found.utilization_percent) == (None, None)


def test_a_process_from_outside_with_the_name_of_a_service_is_not_the_service() -> None:
    found = joined(
        process(11), process(99, "llama"), traces={11: Trace(frozenset({10}))}, services=(service("llama", 10),)
    )
    assert [(owner.name, owner.service) for owner in found] == [("llama", True), ("llama", False)]


def test_very_many_are_told_as_a_number() -> None:
    found = joined(*(process(pid, f"p{pid}", pid) for pid in range(1, 21)), traces={}, services=())
    assert len(found) == 17
    assert found[0].name == "p20"
    assert (found[-1].name, found[-1].memory_mb) == ("4 others", 1 + 2 + 3 + 4)


@pytest.fixture
def child() -> object:
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as running:
        yield running
        running.kill()


def test_a_process_is_traced_to_those_above_it(child: subprocess.Popen[bytes]) -> None:
    trace = trace_process(child.pid)
    assert {child.pid, os.getpid(), os.getppid()} - {1} <= trace.pids


def test_it_is_seen_where_a_process_or_one_above_it_listens(child: subprocess.Popen[bytes]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] in trace_process(child.pid).ports


def test_without_proc_the_parents_are_found_as_well(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(owners, "_PROC", tmp_path)
    assert {child.pid, os.getpid()} <= trace_process(child.pid).pids

    def gone(_: int) -> psutil.Process:
        raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(psutil, "Process", gone)
    assert trace_process(child.pid) == Trace()


def test_names_with_blanks_and_parentheses_and_entries_that_vanish_do_no_harm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "50").mkdir()
    (tmp_path / "50" / "stat").write_text("50 (a) b (c) S 40 45 44 0 -1 4194560")
    (tmp_path / "50" / "cgroup").write_text("1:cpu:/x\n0::/muster.slice/g/llama\n")
    monkeypatch.setattr(owners, "_PROC", tmp_path)
    assert trace_process(50) == Trace(frozenset({50, 45, 44}), "/muster.slice/g/llama")
    assert trace_process(51) == Trace()


def test_each_process_is_traced_once_as_long_as_it_is_there() -> None:
    asked: list[int] = []

    def trace(pid: int) -> Trace:
        asked.append(pid)
        return Trace(frozenset({pid}))

    traces = Traces(trace)
    for there in ([1, 2], [1, 2], [2], [1, 2]):
        for pid in there:
            assert traces.of(process(pid)) == Trace(frozenset({pid}))
        traces.forget_others()
    assert asked == [1, 2, 1]
    traces.of(process(2, "another"))  # the number was given again
    traces.look_for(frozenset({11434}))
    traces.of(process(2, "another"))
    assert asked == [1, 2, 1, 2, 2]
