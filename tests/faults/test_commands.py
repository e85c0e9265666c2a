"""Every command on a real agent over HTTP, and what is left of commands when processes die between them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from tests.faults import model_server
from tests.faults.conftest import FAST
from tests.faults.test_kills import all_events, health, submit
from tests.muster_process import ControlPlane, MusterProcess
from tests.valkey_server import ValkeyServer
from tests.waiting import eventually_sync

ENDED = {"done", "failed", "expired"}
NODE = "gpu-1"

NODE_FILE = """
[node]
id = "{node}"
{attach}

[[service]]
name = "models"
connector = "ollama"
command = ["{python}", "{server}", "{{port}}"]

[commands]
say = ["{python}", "-c", "import sys; print(' '.join(sys.argv[1:]))", "hello", "{{args}}"]
plain = ["{python}", "-c", "print(1)"]
fail = ["{python}", "-c", "raise SystemExit(3)"]
hang = ["{python}", "-c", "import time; time.sleep(600)", "a-program-that-hangs"]
"""

Start = Callable[..., MusterProcess]


@pytest.fixture
def start_node(tmp_path: Path, plane: ControlPlane) -> Iterator[Start]:
    """Start an agent with a service of its own, programs by name and, if there is one, an attached service."""
    agents: list[MusterProcess] = []

    def start(node: str = NODE, attach: str = "") -> MusterProcess:
        folder = tmp_path / node
        folder.mkdir(exist_ok=True)
        file = folder / "node.toml"
        file.write_text(NODE_FILE.format(node=node, python=sys.executable, server=model_server.__file__, attach=attach))
        env = {
            "MUSTER_CONTROL_PLANE": plane.url,
            "MUSTER_NODE_FILE": str(file),
            "MUSTER_DATA_DIR": str(folder / "data"),
        }
        agent = MusterProcess(folder, "agent", env=FAST | env)
        agents.append(agent)
        agent.start()
        eventually_sync(lambda: health(plane).get(node) == "healthy" and phase(plane, node) == "ready", 60)
        return agent

    yield start
    for agent in agents:
        agent.kill()


def kinds(plane: ControlPlane) -> list[str]:
    return [event["kind"] for event in all_events(plane)]


def phase(plane: ControlPlane, node: str = NODE) -> str:
    return str(plane.get(f"/api/v1/nodes/{node}")["phase"])


def issue(plane: ControlPlane, command: str, /, node: str = NODE, timeout: float = 60, **args: Any) -> str:
    body = {"node_id": node, "command": command, "args": args, "timeout": timeout}
    return str(plane.post("/api/v1/command", body)["command_id"])


def outcome(plane: ControlPlane, command_id: str, timeout_s: float = 60) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        found = dict(plane.get(f"/api/v1/commands/{command_id}"))
        return found if found["state"] in ENDED else None

    found = eventually_sync(ended, timeout_s)
    assert found is not None
    return found


def done(plane: ControlPlane, command: str, /, **args: Any) -> Any:
    found = outcome(plane, issue(plane, command, **args))
    assert found["state"] == "done", found["error"]
    return found["result"]


def refused(plane: ControlPlane, command: str, /, **args: Any) -> str:
    found = outcome(plane, issue(plane, command, **args))
    assert found["state"] == "failed", found
    return str(found["error"])


@contextmanager
def attached_server() -> Iterator[str]:
    """Run a model server that the agent finds."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), model_server.Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def models(plane: ControlPlane) -> set[str]:
    return {model["name"] for service in plane.get(f"/api/v1/nodes/{NODE}")["services"] for model in service["models"]}


def test_a_node_tells_how_it_is_and_both_logs_name_node_and_command(plane: ControlPlane, start_node: Start) -> None:
    agent = start_node()
    told = done(plane, "status")
    assert (told["phase"], told["draining"], told["services"]) == ("ready", False, {"models": "running"})
    assert any("command_created" in line and NODE in line and "status" in line for line in plane.log.splitlines())
    assert any("command_received" in line and "status" in line for line in agent.log.splitlines())
    kept = ["command_created", "command_sent", "command_acked", "command_done"]
    eventually_sync(lambda: [kind for kind in kinds(plane) if kind.startswith("command_")] == kept, 10)


def test_services_and_their_models_obey(plane: ControlPlane, start_node: Start) -> None:
    with attached_server() as url:
        start_node(attach=f'attach = {{ ollama = "{url}" }}')

        assert done(plane, "logs", service="models", lines=5)["lines"] == ["model server is up"]
        before = plane.get(f"/api/v1/nodes/{NODE}")["services"]
        again = done(plane, "restart_service", service="models")
        assert again["status"] == "running"
        assert again["pid"] not in {service["pid"] for service in before if service["name"] == "models"}
        assert "not managed by this agent" in refused(plane, "restart_service", service="ollama")
        assert "not managed by this agent" in refused(plane, "logs", service="ollama")
        assert "it has models, ollama" in refused(plane, "logs", service="nothing")

        assert done(plane, "pull_model", model="fresh", service="models") == {"model": "fresh", "service": "models"}
        eventually_sync(lambda: "fresh:latest" in models(plane), 30)
        assert done(plane, "logs", service="models", lines=1)["lines"] == ["pulling fresh:latest"]
        assert "file does not exist" in refused(plane, "pull_model", model="nothing", service="models")
        assert done(plane, "unload_model", model="smol") == {"model": "smol", "service": "models"}
        assert "has the model 'unheard-of'" in refused(plane, "unload_model", model="unheard-of")


def test_only_what_the_nodes_own_file_lists_is_run(plane: ControlPlane, start_node: Start) -> None:
    start_node()
    shouted = done(plane, "exec", name="say", args=["big", "$HOME; true"])
    assert shouted == {"exit_code": 0, "output": "hello big $HOME; true\n", "output_cut": False}
    assert done(plane, "exec", name="fail")["exit_code"] == 3
    assert "takes no further words" in refused(plane, "exec", name="plain", args=["-c", "exit()"])
    for name in ("bash", "/bin/sh", "../say", "SAY"):
        assert "does not allow" in refused(plane, "exec", name=name)

    cut = outcome(plane, issue(plane, "exec", name="hang", timeout=1.5))
    assert cut["state"] in {"failed", "expired"}
    eventually_sync(lambda: not hanging(), 20)


def hanging() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if "a-program-that-hangs" in words:
            found.append(process)
    return found


def test_work_waits_for_the_resume_and_a_cancelled_job_stops(plane: ControlPlane, start_node: Start) -> None:
    start_node()
    assert done(plane, "drain", reason="new disks")["draining"] is True
    assert plane.get(f"/api/v1/nodes/{NODE}")["draining"] is True
    assert done(plane, "status")["workers"] == {f"{NODE}-worker-0": "draining"}
    (job_id,) = submit(plane, 1, duration_ms=60_000)
    # A claim that waited when the drain came may be handed it; it gives it back, and asks for no more.
    eventually_sync(lambda: plane.job(job_id)["status"] in {"pending", "unworkable"}, 30)
    assert done(plane, "status")["workers"] == {f"{NODE}-worker-0": "draining"}
    assert plane.job(job_id)["status"] in {"pending", "unworkable"}

    assert done(plane, "resume") == {"draining": False}
    eventually_sync(lambda: plane.job(job_id)["status"] in {"assigned", "in_progress"}, 30)
    assert done(plane, "cancel_job", job_id=job_id) == {"job_id": job_id, "was_running": True}
    assert plane.job(job_id)["status"] == "cancelled"
    eventually_sync(lambda: done(plane, "status")["workers"] == {f"{NODE}-worker-0": "idle"}, 30)


def test_a_drain_holds_when_the_control_plane_and_the_agent_start_anew(plane: ControlPlane, start_node: Start) -> None:
    agent = start_node()
    done(plane, "drain")
    plane.kill()
    plane.start()
    eventually_sync(lambda: health(plane).get(NODE) == "healthy", 30)
    assert plane.get(f"/api/v1/nodes/{NODE}")["draining"] is True
    agent.kill()
    agent.start()
    eventually_sync(lambda: done(plane, "status")["draining"] is True, 30)


def test_a_shutdown_leaves_no_node_and_is_not_carried_out_twice(plane: ControlPlane, start_node: Start) -> None:
    agent = start_node()
    body = {"node_id": NODE, "command": "shutdown", "args": {"reason": "night"}, "command_id": "good-night"}
    assert plane.post("/api/v1/command", body)["created"] is True
    assert agent.wait() == 0
    assert health(plane) == {}
    assert any("shutdown_ordered" in line and "night" in line for line in agent.log.splitlines())
    found = outcome(plane, "good-night")
    assert (found["state"], found["result"]) == ("done", {"reason": "night"})
    left = [event for event in all_events(plane) if event["kind"] == "node_deregistered"]
    assert [event["data"]["reason"] for event in left] == ["night"]

    agent.start()
    eventually_sync(lambda: health(plane).get(NODE) == "healthy", 30)
    assert plane.post("/api/v1/command", body)["created"] is False
    assert done(plane, "status")["phase"] in {"starting", "configuring", "ready"}
    assert agent.running


def test_a_shutdown_of_the_node_inside_up_leaves_the_control_plane_running(tmp_path: Path) -> None:
    both = ControlPlane(tmp_path / "both", "up", env=FAST | {"MUSTER_NODE_ID": NODE})
    try:
        both.start()
        eventually_sync(lambda: health(both) == {NODE: "healthy"}, 60)
        assert done(both, "status")["phase"] in {"configuring", "ready"}
        assert done(both, "shutdown", reason="night") == {"reason": "night"}
        eventually_sync(lambda: health(both) == {}, 30)
        assert both.stop() == 0
    finally:
        both.kill()


def test_the_result_arrives_though_the_control_plane_is_killed_in_between(
    plane: ControlPlane, start_node: Start
) -> None:
    agent = start_node()
    (job_id,) = submit(plane, 1, duration_ms=60_000)
    eventually_sync(lambda: plane.job(job_id)["status"] in {"assigned", "in_progress"}, 30)
    agent.freeze()  # it takes the command only after the control plane has died
    command_id = issue(plane, "exec", name="say", args=["once"], timeout=120)
    plane.kill()
    agent.thaw()
    plane.start()
    found = outcome(plane, command_id)
    assert (found["state"], found["result"]["output"]) == ("done", "hello once\n")
    assert agent.log.count("command_received") == 1


def test_a_command_without_an_answer_expires_and_its_node_shows_it(plane: ControlPlane, start_node: Start) -> None:
    agent = start_node()
    agent.freeze()
    command_id = issue(plane, "status", timeout=1)
    found = outcome(plane, command_id)
    assert (found["state"], found["error"]) == ("expired", "no answer by its deadline")
    problem = plane.get(f"/api/v1/nodes/{NODE}")["command_problem"]
    assert problem == f"status ({command_id}): no answer by its deadline"
    agent.thaw()
    eventually_sync(lambda: done(plane, "status"), 30)
    assert plane.get(f"/api/v1/nodes/{NODE}")["command_problem"] is None


def test_a_command_reaches_its_node_whichever_control_plane_took_it(tmp_path: Path) -> None:
    store = ValkeyServer("valkey")
    planes = [ControlPlane(tmp_path / name, env=FAST | {"MUSTER_VALKEY_URL": store.url}) for name in ("one", "two")]
    one, two = planes
    env = {"MUSTER_CONTROL_PLANE": two.url, "MUSTER_NODE_ID": NODE, "MUSTER_DATA_DIR": str(tmp_path / "node")}
    agent = MusterProcess(tmp_path / "agent", "agent", env=FAST | env)
    try:
        store.start()
        one.start()
        two.start()
        agent.start()
        eventually_sync(lambda: health(one) == {NODE: "healthy"} == health(two), 60)
        assert done(one, "status")["draining"] is False
        assert done(one, "drain")["draining"] is True
        eventually_sync(lambda: all(each.get(f"/api/v1/nodes/{NODE}")["draining"] for each in planes), 10)

        agent.freeze()
        command_id = issue(one, "resume", timeout=60)
        eventually_sync(lambda: two.get(f"/api/v1/commands/{command_id}")["state"] in {"created", "sent"}, 10)
        again = two.post("/api/v1/command", {"node_id": NODE, "command": "resume", "command_id": command_id})
        assert again["created"] is False
        one.kill()
        agent.thaw()
        assert outcome(two, command_id)["result"] == {"draining": False}
        one.start()
        assert outcome(one, command_id) == outcome(two, command_id)
    finally:
        for process in (agent, *planes):
            process.kill()
        store.remove()
