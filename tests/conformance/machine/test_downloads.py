"""The rows on downloads: fetched once however many ask, from where they are nearest, and failures told in words."""

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.file_server import Fault, FileServer
from tests.muster_process import ControlPlane, MusterProcess
from tests.unit.agent_artifacts.fetching import archive_of, sha
from tests.waiting import eventually_sync

MODEL = b"GGUF" + bytes(range(256)) * 2000
# What a worker package is: a program that serves whatever model it is given.
WORKER = b"""
import http.server, json, sys
port, model = int(sys.argv[1]), sys.argv[2]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open(model, "rb") as file:
            body = json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}], "v": VERSION}).encode()
            assert file.read(4) == b"GGUF"
        self.send_response(200); self.send_header("Content-Type", "application/json"); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
NODE_FILE = """
[[service]]
name = "worker"
connector = "openai"
per = "gpu"
bundle = "{bundle}"
model = "{model}"
command = ["{{python}}", "{{bundle_path}}/dist/worker.py", "{{port}}", "{{model_path}}"]
restarts_max = 0
"""
FAST = {
    "MUSTER_MODEL": "none",
    "MUSTER_DISCOVER": "false",
    "MUSTER_HEARTBEAT_INTERVAL_S": "0.3",
    "MUSTER_STOP_TIMEOUT_S": "1",
    "MUSTER_ARTIFACT_FREE_BYTES_MIN": "0",
}


def package(version: int) -> bytes:
    return archive_of(**{"dist/worker.py": WORKER.replace(b"VERSION", str(version).encode())})


class Site:
    """Machines of one test at the control plane of all, and where their packages and models come from."""

    def __init__(self, folder: Path, plane: ControlPlane, source: FileServer) -> None:
        self.folder = folder
        self.plane = plane
        self.source = source
        self.package = package(1)
        self.bundle = source.put("/releases/worker.tar.gz", self.package)
        self.model = source.put("/models/m.gguf", MODEL)
        self.names: set[str] = set()
        self.agents: list[MusterProcess] = []

    def machine(self, name: str = "m1", gpus: int = 4, env: Mapping[str, str] | None = None) -> MusterProcess:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        self.names.add(name)
        (folder / "node.toml").write_text(NODE_FILE.format(bundle=self.bundle, model=self.model) if gpus else "")
        agent = MusterProcess(
            folder,
            "agent",
            env=FAST
            | {
                "MUSTER_CONTROL_PLANE": self.plane.url,
                "MUSTER_NODE_ID": name,
                "MUSTER_NUM_GPUS": str(gpus),
                "MUSTER_DATA_DIR": str(folder / "data"),
                "MUSTER_ARTIFACT_DIR": str(folder / "artifacts"),
                "MUSTER_NODE_FILE": str(folder / "node.toml"),
                "MUSTER_HUB_URL": self.source.url(),
            }
            | dict(env or {}),
        )
        self.agents.append(agent)
        return agent.start()

    def node(self, name: str = "m1") -> dict[str, Any]:
        return next((node for node in self.plane.get("/api/v1/nodes") if node["node_id"] == name), {})

    def wait_until_running(self, count: int, name: str = "m1") -> None:
        def running() -> bool:
            services = self.node(name).get("services", [])
            return len(services) == count and all(service["status"] == "running" for service in services)

        eventually_sync(running, 60)

    def wait_until_ready(self, name: str = "m1") -> dict[str, Any]:
        eventually_sync(lambda: self.node(name).get("phase") == "ready", 60)
        return self.node(name)

    def facts(self, kind: str) -> list[dict[str, Any]]:
        events = self.plane.get("/api/events?limit=1000")["events"]
        return [event["data"] for event in events if event["kind"] == kind and event["key"] in self.names]

    def workers(self) -> list[dict[str, Any]]:
        return [worker for name in self.names for worker in self.plane.get(f"/api/v1/workers?node_id={name}")]

    def copies(self, name: str) -> dict[str, str]:
        rows = [row for row in self.plane.get("/api/v1/models") if row["name"] == name]
        return {copy["node_id"]: copy["state"] for row in rows for copy in row["copies"]}

    def done(self, path: str, **body: Any) -> dict[str, Any]:
        """Issue an order and wait for its end."""
        issued = self.plane.post(path, body)

        def ended() -> Any:
            answer = self.plane.get(f"/api/v1/commands/{issued['command_id']}")
            return answer if answer["state"] in {"done", "failed", "expired"} else None

        return dict(eventually_sync(ended, 30))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    process = ControlPlane(tmp_path_factory.mktemp("downloads"), env=FAST)
    try:
        process.start()
        yield process
    finally:
        process.kill()


@pytest.fixture
def site(tmp_path: Path, plane: ControlPlane) -> Iterator[Site]:
    with FileServer() as source:
        made = Site(tmp_path, plane, source)
        try:
            yield made
        finally:
            for process in made.agents:
                process.kill()
            for name in made.names:
                plane.forget(name)


def test_f4_u1_u2_i1_i2_and_g5_four_workers_make_one_fetch_of_package_and_model(site: Site) -> None:
    agent = site.machine(gpus=4)
    site.wait_until_running(4)
    # One request each, without a token, of the URL as it was given.
    assert site.source.count("/releases/worker.tar.gz") == site.source.count("/models/m.gguf") == 1
    assert all("authorization" not in asked.headers for asked in site.source.asked)
    (script,) = (site.folder / "m1" / "artifacts").rglob("dist/worker.py")
    assert b"VERSION" not in script.read_bytes()
    workers = eventually_sync(lambda: site.workers() if len(site.workers()) == 4 else [], 20)
    for worker in workers:  # version and digests are in each worker's record
        assert worker["version"]
        assert worker["artifacts"] == {site.bundle: sha(site.package), site.model: sha(MODEL)}
    assert site.copies(site.model) == {"m1": "resident"}
    # U3: whatever is said of downloads is success.
    assert set(re.findall(r"download_\w+", agent.log)) == {"download_started", "download_done"}


def test_u4_and_f1_p_a_new_package_is_fetched_at_the_next_boot_and_the_cache_cleaned_each_time(site: Site) -> None:
    agent = site.machine(gpus=1)
    site.wait_until_running(1)
    assert agent.stop() == 0
    newer = package(2)
    site.source.put("/releases/worker.tar.gz", newer)
    agent.start()
    eventually_sync(
        lambda: [worker["artifacts"].get(site.bundle) for worker in site.workers()] == [sha(newer)],
        60,
    )
    lines = agent.log.splitlines()
    cleaned = [at for at, line in enumerate(lines) if "Worker cache cleaned" in line]
    ready = [at for at, line in enumerate(lines) if "startup_complete" in line]
    assert len(cleaned) == 2
    assert cleaned[0] < ready[0] < cleaned[1] < ready[-1]
    assert site.source.count("/models/m.gguf") == 1


def test_f4_s1_who_is_asked_too_often_is_asked_again_when_it_says(site: Site) -> None:
    limits = [Fault(status=status, headers={"Retry-After": "1"}) for status in (403, 429)]
    site.source.fail("/releases/worker.tar.gz", *limits)
    site.source.fail("/models/m.gguf", Fault(cut_at=100_000))
    began_s = time.monotonic()
    site.machine(gpus=2)
    site.wait_until_running(2)
    assert time.monotonic() - began_s >= 2.0
    assert site.source.count("/releases/worker.tar.gz") == 3
    assert site.facts("service_failed") == []


def test_f4_s2_what_cannot_be_fetched_fails_its_services_in_words_and_can_be_tried_again(site: Site) -> None:
    site.source.always["/models/m.gguf"] = Fault(status=404)
    site.machine(gpus=2)
    node = site.wait_until_ready()
    assert node["health_status"] == "degraded"
    assert "404" in node["reason"]
    eventually_sync(lambda: len(site.facts("service_failed")) == 2, 20)
    assert all("its model is not there" in fact["reason"] for fact in site.facts("service_failed"))
    (failed,) = site.facts("artifact_failed")
    assert failed["name"] == site.model
    assert "check the name" in failed["next_step"]
    assert not list((site.folder / "m1" / "artifacts").rglob("m.gguf"))
    assert site.copies(site.model) == {"m1": "failed"}
    del site.source.always["/models/m.gguf"]
    for service in ("worker-gpu0", "worker-gpu1"):
        answer = site.done("/api/v1/command", node_id="m1", command="restart_service", args={"service": service})
        assert answer["state"] == "done", answer["error"]
    site.wait_until_running(2)
    eventually_sync(lambda: site.node()["health_status"] == "healthy", 20)


def test_killed_while_fetching_it_goes_on_where_it_was(site: Site) -> None:
    site.source.fail("/models/m.gguf", Fault(hold_at=300_000))
    agent = site.machine(gpus=1)
    parts = site.folder / "m1" / "artifacts"
    eventually_sync(lambda: [path.stat().st_size for path in parts.rglob("*.part")] == [300_000], 60)
    eventually_sync(lambda: site.copies(site.model) == {"m1": "fetching"}, 20)
    (service,) = eventually_sync(lambda: site.node().get("services", []), 20)
    assert service["status"] == "starting"
    assert service["error"].startswith("fetching ")
    assert site.model in service["error"]
    agent.kill()
    assert not list(parts.rglob("m.gguf"))
    agent.start()
    site.wait_until_running(1)
    assert [asked.range for asked in site.source.asked if asked.path == "/models/m.gguf"] == [None, "bytes=300000-"]


def test_g5_the_second_machine_gets_it_from_the_first_and_the_source_is_asked_once(site: Site) -> None:
    site.machine("first", gpus=1)
    site.wait_until_running(1, "first")
    eventually_sync(lambda: site.copies(site.model) == {"first": "resident"}, 20)
    site.machine("second", gpus=2)
    site.wait_until_running(2, "second")
    # Whether the package is still the newest was asked; sent was each of the two once.
    assert site.source.count("/models/m.gguf") == 1
    assert site.source.sent == {"/models/m.gguf": 1, "/releases/worker.tar.gz": 1}
    places = {fact["name"]: fact["from"] for fact in site.facts("artifact_fetched") if fact["from"].startswith("node")}
    assert places == {site.model: "node first", site.bundle: "node first"}
    eventually_sync(lambda: site.copies(site.model) == {"first": "resident", "second": "resident"}, 20)
    (row,) = [row for row in site.plane.get("/api/v1/models") if row["name"] == site.model]
    assert row["replicated"] is True
    assert site.model in site.plane.get("/v2/catalog/availability")["replicated_models"]


def test_models_are_pulled_copied_and_removed_by_order(site: Site) -> None:
    site.source.put_hub("org/repo", "c0ffee", {"q4.gguf": MODEL})
    name = "hf:org/repo/q4.gguf"
    for machine in ("a", "b"):
        site.machine(machine, gpus=0)
    for machine in ("a", "b"):
        site.wait_until_ready(machine)
    pulled = site.done("/api/v1/models/pull", model=name, nodes=["a"])
    assert pulled["state"] == "done", pulled["error"]
    assert pulled["commands"][0]["progress"]["fraction"] is not None
    assert Path(pulled["result"]["path"]).read_bytes() == MODEL
    eventually_sync(lambda: site.copies(name) == {"a": "on_disk"}, 20)
    copied = site.done("/api/v1/models/copy", model=name, nodes=["b"])
    assert copied["state"] == "done", copied["error"]
    assert site.source.count("/org/repo/resolve/c0ffee/q4.gguf") == 1
    eventually_sync(lambda: site.copies(name) == {"a": "on_disk", "b": "on_disk"}, 20)
    removed = site.done("/api/v1/models/remove", model=name, nodes=["a", "b"])
    assert removed["counts"] == {"done": 2}
    eventually_sync(lambda: site.copies(name) == {}, 20)
    again = site.done("/api/v1/models/remove", model=name, nodes=["a"])
    assert (again["state"], "does not keep" in (again["error"] or "")) == ("failed", True)
