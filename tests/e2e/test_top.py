"""`muster top` in a pseudo-terminal beside a real control plane and a real agent."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest

from muster.domain.gpu import Gpu
from muster.domain.node import NodeFacts
from muster.ids import NodeId
from muster.wire import Heartbeat
from tests.muster_process import ControlPlane, MusterProcess
from tests.terminals import TerminalProgram
from tests.waiting import eventually_sync

Top = Callable[..., AbstractContextManager[TerminalProgram]]


@pytest.fixture(scope="module")
def agent(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MusterProcess]:
    folder = tmp_path_factory.mktemp("agent")
    env = {
        "MUSTER_CONTROL_PLANE": plane.url,
        "MUSTER_DATA_DIR": str(folder / "data"),
        "MUSTER_DISCOVER": "false",
        "MUSTER_HEARTBEAT_INTERVAL_S": "0.3",
        "MUSTER_NODE_ID": "worker-machine",
        "MUSTER_NUM_GPUS": "1",
    }
    started = MusterProcess(folder, "agent", env=env).start()
    yield started
    started.stop()


@pytest.fixture
def top(plane: ControlPlane, tmp_path: Path) -> Top:
    def start(*arguments: str, size: tuple[int, int] = (110, 30), **env: str) -> TerminalProgram:
        command = [sys.executable, "-m", "muster.cli.main", "top", "--server", plane.url, *arguments]
        basics = {"TERM": "xterm-256color", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
        return TerminalProgram(command, env=basics | env, cwd=tmp_path, size=size)

    return start


def report(plane: ControlPlane, node_id: str, seq: int, busy: float | None) -> None:
    card = Gpu(index=0, name="NVIDIA L4", memory_total_mb=24_576, utilization_percent=busy)
    facts = NodeFacts(node_id=NodeId(node_id))
    beat = Heartbeat(facts=facts, boot_id="b", seq=seq, heartbeat_interval_s=60.0, gpus=(card,))
    plane.post("/api/agent/heartbeat", json.loads(msgspec.json.encode(beat)))


def assert_given_back(seen: TerminalProgram) -> None:
    assert seen.mode == seen.before
    assert not seen.screen.other
    assert seen.screen.cursor


def test_it_shows_what_is_and_what_changes_and_gives_the_terminal_back(plane: ControlPlane, top: Top) -> None:
    report(plane, "gpu-1", 1, None)
    with top() as seen:
        seen.until("LIVE", "gpu-1", "util ?")
        report(plane, "gpu-1", 2, 75.0)
        seen.until(" 75%")
        report(plane, "gpu-2", 1, 10.0)
        seen.until("gpu-2", "nodes 1-2 of 2")
        assert seen.screen.other
        assert seen.mode != seen.before
        assert not seen.screen.overflowed
        seen.press("q")

        assert seen.ended() == 0
        assert_given_back(seen)


def test_a_node_is_drained_and_resumed_and_a_job_cancelled_from_the_keyboard(
    plane: ControlPlane, agent: MusterProcess, top: Top
) -> None:
    eventually_sync(lambda: plane.get("/api/v1/nodes/worker-machine")["phase"] == "ready")
    with top() as seen:
        seen.until("LIVE", "worker-machine")
        seen.press("/worker-m\r")
        seen.until("filter: worker-m", "nodes 1-1 of 1")
        seen.press("d")
        seen.until("Drain worker-machine", "[y: do it")
        seen.press("y")
        seen.until("drain worker-machine: done", "draining")
        job = plane.post("/api/jobs", {"service_required": "simulation", "payload": {"duration_ms": 600_000}})["job_id"]
        seen.press("\t")
        seen.until(job, "pending")
        seen.press("\t")
        seen.until("filter: worker-m")
        seen.press("ry")
        seen.until("resume worker-machine: done", "ready", "1/1")
        seen.press("\t")
        seen.until(job, "in_progress")
        seen.press("cy")
        seen.until(f"cancel {job}: cancelled")
        assert plane.job(job)["status"] == "cancelled"
        seen.press("\x03")

        assert seen.ended() == 0


def test_it_outlives_the_control_plane_and_is_true_again_by_itself(plane: ControlPlane, top: Top) -> None:
    report(plane, "gpu-1", 3, 20.0)
    with top() as seen:
        seen.until("LIVE", "gpu-1", " 20%")
        plane.kill()
        seen.until("NOT CONNECTED", "gpu-1")  # what was known last is still there
        plane.start()
        seen.until("LIVE", "gpu-1")
        report(plane, "gpu-1", 4, 95.0)
        seen.until("LIVE", " 95%")
        plane.post("/api/jobs", {"service_required": "nobody-has-it", "payload": {}})
        seen.until("1 unworkable", "nobody-has-it 0 running 1 waiting")


def test_it_fits_any_screen_while_it_changes_and_works_without_colours(plane: ControlPlane, top: Top) -> None:
    report(plane, "gpu-1", 5, 20.0)
    with top(size=(200, 50), NO_COLOR="1") as seen:
        seen.until("LIVE", "gpu-1", "heard")
        seen.resize(40, 10)
        seen.until("LIVE", "gpu-1", without="heard")
        assert not seen.screen.overflowed
        assert not {style for style in seen.screen.styles if style in {str(code) for code in range(30, 38)}}
        seen.process.terminate()

        assert seen.ended() == 0
        assert_given_back(seen)


@pytest.mark.parametrize("arguments", [(), ("--once",)])
def test_without_a_terminal_it_prints_one_frame(
    plane: ControlPlane, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    report(plane, "gpu-1", 6, 20.0)
    printing = MusterProcess(tmp_path, "top", "--server", plane.url, *arguments, env={"COLUMNS": "100"}).start()

    assert printing.wait() == 0
    assert " gpu-1" in printing.log
    assert "\x1b" not in printing.log
    assert max(map(len, printing.log.splitlines())) <= 100


def test_programs_get_everything_as_json(plane: ControlPlane, tmp_path: Path) -> None:
    report(plane, "gpu-1", 7, 20.0)
    printing = MusterProcess(tmp_path, "top", "--server", plane.url, "--json", env={}).start()

    assert printing.wait() == 0
    said = json.loads(printing.log)
    assert "gpu-1" in {machine["machine_id"] for machine in said["machines"]}
    assert said.keys() >= {"workers", "jobs", "queues", "system_stats"}


def test_without_a_control_plane_it_says_so_and_goes_on_trying(top: Top, tmp_path: Path) -> None:
    with top("--server", "http://127.0.0.1:9") as seen:
        seen.until("NOT CONNECTED", "no control plane answers", "Waiting for the first word")
        seen.press("q")

        assert seen.ended() == 0
