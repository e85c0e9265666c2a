"""The machine's rows of the testing procedures: what it starts, what it tells, and what can be asked of it."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import yaml

from tests.conformance.machine.conftest import GPUS, MACHINE, FullStack, sequence_of, services_of, told

ROOT = Path(__file__).parents[3]


def test_1_1_the_monitor_is_served_at_the_root(stack: FullStack) -> None:
    asked = urllib.request.Request(stack.plane.url, headers={"Accept": "text/html"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        assert (answer.status, answer.headers.get_content_type()) == (200, "text/html")
        assert b"<title>" in answer.read()


def test_1_6_the_event_log_has_what_a_monitor_is_told(stack: FullStack) -> None:
    note, connected, snapshot, *_ = stack.messages()
    assert (note["type"], note["state"]) == ("event_log", "connected")
    assert connected["type"] == "connected"
    assert snapshot["type"] == "full_state_snapshot"
    assert {"machines", "workers", "jobs"} <= snapshot["data"].keys()


def test_2_1_the_log_says_what_is_open(stack: FullStack) -> None:
    log = stack.plane.log
    for line in ("Redis connected: ", f"HTTP server started on {stack.plane.url}", "WebSocket endpoints active: "):
        assert line in log
    assert "subscription active: machine:startup:events" in log


def test_2_2_the_status_lists_every_part(stack: FullStack) -> None:
    parts = stack.parts()
    for name in ("store", "control plane", "gateway", "monitor", f"machine {MACHINE}", "event log"):
        assert parts[name]["status"] == "running"
        assert psutil.pid_exists(parts[name]["pid"])
        assert parts[name]["address"]
        assert parts[name]["started_at_ms"]
    logs = [parts[name]["log"] for name in ("store", f"machine {MACHINE}", "event log")]
    assert all(Path(log).exists() for log in logs)
    assert len(set(logs)) == len(logs)
    assert parts["comfyui-gpu1"]["status"] == "running"
    assert parts[f"machine {MACHINE}"]["pid"] not in {parts["control plane"]["pid"], parts["comfyui-gpu0"]["pid"]}


def test_3_a_machine_tells_its_twelve_groups_in_order(stack: FullStack) -> None:
    messages = stack.messages()
    (complete,) = [at for at, message in enumerate(messages) if message.get("event") == "startup_complete"]
    sequence = told(messages[: complete + 1])
    assert sequence == sequence_of(GPUS)
    started = [name for kind, name in sequence if kind == "service_started"]
    assert started == services_of(GPUS)
    assert len(started) == 3 + 2 * GPUS
    assert {message["machine_id"] for message in messages if "event" in message} == {MACHINE}


def test_3_the_types_of_these_messages_are_those_of_the_monitor(stack: FullStack) -> None:
    types = {message["event"]: message["type"] for message in stack.messages() if "event" in message}
    assert types == {
        "machine_startup": "machine_startup",
        "startup_step": "machine_startup_step",
        "service_started": "service_started",
        "startup_complete": "machine_startup_complete",
    }


def test_3_2_the_machine_is_registered_once_and_ready(stack: FullStack) -> None:
    (machine,) = stack.state()["machines"]
    assert (machine["machine_id"], machine["status"], machine["reason"]) == (MACHINE, "ready", None)
    assert len(stack.state()["workers"]) == GPUS


def test_4_1_and_4_2_its_workers_simulate_and_drive_comfyui(stack: FullStack) -> None:
    workers = stack.state()["workers"]
    assert [worker["worker_id"] for worker in workers] == [f"{MACHINE}-worker-{number}" for number in range(GPUS)]
    for worker in workers:
        assert worker["id"] == worker["worker_id"]
        assert (worker["machine_id"], worker["status"]) == (MACHINE, "idle")
        assert worker["capabilities"]["services"] == ["simulation", "comfyui"]
        assert worker["connector_statuses"] == {"simulation": "running", "comfyui": "running"}


def test_4_3_the_log_of_the_control_plane_has_the_flow_of_events(stack: FullStack) -> None:
    for words in ("machine_startup", "startup_step", "service_started", "worker_status", "connector_status"):
        assert words in stack.plane.log


def test_5_1_the_machine_says_that_it_publishes(stack: FullStack) -> None:
    lines = [json.loads(line)["event"] for line in stack.machine_log.splitlines() if line.startswith("{")]
    assert any(line.startswith("Publishing machine_startup, ") and line.endswith(" events") for line in lines)


def test_5_2_processes_their_logs_and_the_stores_address_are_at_hand(stack: FullStack) -> None:
    assert set(services_of(GPUS)[3:]) <= stack.processes().keys()
    for number in range(GPUS):
        assert "simulated ComfyUI" in (stack.logs / f"comfyui-gpu{number}.log").read_text()
    store = stack.parts()["store"]
    assert store["address"] in stack.plane.log  # where it is; its password, if it has one, is nowhere


def test_6_and_7_the_quick_check_finds_everything_in_order(stack: FullStack) -> None:
    state = stack.state()
    assert [machine["status"] for machine in state["machines"]] == ["ready"]
    assert [worker["status"] for worker in state["workers"]] == ["idle"] * GPUS
    assert stack.plane.get("/health")["status"] == "ok"


def test_6_a_job_of_each_kind_is_done(stack: FullStack) -> None:
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }
    for service, payload in (("simulation", {"duration_ms": 0}), ("comfyui", {"prompt": graph})):
        ran = stack.muster("submit", service, "--payload", json.dumps(payload), "--wait", "--json")
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["status"] == "completed"


def test_7_2_and_e5_all_processes_are_listed_and_online(stack: FullStack) -> None:
    listed = stack.ask(stack.list_port, "/pm2/list")
    assert {process["name"] for process in listed} == {"orchestrator", *services_of(GPUS)[3:]}
    for process in listed:
        assert process["status"] == process["pm2_env"]["status"] == "online"
        assert psutil.pid_exists(process["pid"])


def test_7_3_the_simulation_answers(stack: FullStack) -> None:
    health = stack.ask(stack.simulation_port, "/health")
    assert (health["status"], health["service"], len(health["workers"])) == ("ok", "simulation", GPUS)


def finds_it_healthy(command: list[str], address: str, ours: str) -> bool:
    """Run a container's own check on what stands here."""
    assert command[0] == "python"
    asked = [word.replace(address, ours) for word in command[1:]]
    assert asked != command[1:]
    return subprocess.run([sys.executable, *asked], timeout=30, check=False).returncode == 0


def test_7_4_the_containers_own_checks_find_it_healthy(stack: FullStack) -> None:
    machine = yaml.safe_load((ROOT / "deploy" / "compose.machine.yaml").read_text())["services"]["agent"]
    assert machine["container_name"] == MACHINE
    here = f"http://127.0.0.1:{stack.simulation_port}"
    assert finds_it_healthy(machine["healthcheck"]["test"][1:], "http://127.0.0.1:8299", here)
    lines = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    (check,) = [line for line in lines if line.startswith("HEALTHCHECK")]
    command = json.loads(check[check.index("[") :])
    assert finds_it_healthy(command, "http://127.0.0.1:8090", stack.plane.url)


def test_e3_the_machine_has_its_gpus_and_services_at_the_top_level(stack: FullStack) -> None:
    machine = stack.machine()
    assert machine["gpu_count"] == GPUS
    assert machine["gpu_memory_gb"]
    assert {"comfyui", "redis-worker", "simulation"} <= set(machine["services"])


def test_e7_a_service_that_is_stopped_stays_listed(stack: FullStack) -> None:
    stopped = stack.muster("command", MACHINE, "stop_service", "service=comfyui-gpu1")
    assert stopped.returncode == 0, stopped.stderr
    processes = stack.processes()
    assert processes.pop("comfyui-gpu1") == "stopped"
    assert set(processes.values()) == {"online"}
    assert processes.keys() == {"orchestrator", *services_of(GPUS)[3:]} - {"comfyui-gpu1"}

    started = stack.muster("command", MACHINE, "restart_service", "service=comfyui-gpu1")
    assert started.returncode == 0, started.stderr
    assert stack.processes()["comfyui-gpu1"] == "online"


def test_g3_a_service_that_is_started_anew_leaves_the_others_alone(stack: FullStack) -> None:
    before = pids(stack)
    done = stack.muster("command", MACHINE, "restart_service", "service=comfyui-gpu0")
    assert done.returncode == 0, done.stderr
    after = pids(stack)
    assert {name for name in before if after[name] != before[name]} == {"comfyui-gpu0"}
    assert set(stack.processes().values()) == {"online"}


def pids(stack: FullStack) -> dict[str, int]:
    return {process["name"]: process["pid"] for process in stack.ask(stack.list_port, "/pm2/list")}


def test_u4_the_worker_cache_is_cleaned_before_the_first_worker_starts(stack: FullStack) -> None:
    kinds = [(fact["kind"], str(fact["data"].get("service", ""))) for fact in stack.facts()]
    cleaned = kinds.index(("worker_cache_cleaned", ""))
    assert cleaned < kinds.index(("service_started", "redis-worker-gpu0"))
    assert "Worker cache cleaned" in stack.machine_log


def test_f1_u_machine_id_is_read_and_reported_everywhere(stack: FullStack) -> None:
    lines = [json.loads(line) for line in stack.machine_log.splitlines() if line.startswith("{")]
    assert {line["node_id"] for line in lines if line["event"] == "registered"} == {MACHINE}
    assert {fact["key"] for fact in stack.facts() if fact["kind"] == "node_registered"} == {MACHINE}
    assert {worker["machine_id"] for worker in stack.state()["workers"]} == {MACHINE}


def test_f3_p_more_gpus_than_there_are_is_an_event_and_no_silent_default(stack: FullStack) -> None:
    gpus = stack.machine()["gpus"]
    simulated = sum(gpu["simulated"] for gpu in gpus)
    told_of = [fact["data"] for fact in stack.facts() if fact["kind"] == "gpu_count_mismatch"]
    found = [(fact["wanted"], fact["used"], fact["simulated"]) for fact in told_of]
    assert found == ([(GPUS, GPUS, simulated)] if simulated else [])
