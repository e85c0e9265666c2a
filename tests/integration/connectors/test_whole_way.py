"""Connectors from submit to file, through real processes: a package's own, the node file's, and ComfyUI's."""

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.muster_process import ControlPlane, free_port
from tests.waiting import eventually_sync

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "guides" / "connectors.md").read_text()
NODE_FILE = """
[[http]]
name = "thumbs"
url = "http://127.0.0.1:{port}"
path = "/prompt"
methods = ["GET"]

[[program]]
name = "copy"
command = ["cp", "{{source:file}}", "{{dir}}/copy.txt"]
keep = ["copy.*"]

[[program]]
name = "missing"
command = ["no-such-program"]
"""


def code_of_guide() -> tuple[str, str]:
    """Return the connector and the entry point, as the guide shows them."""
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    (entry,) = re.findall(r'\[project\.entry-points\."muster\.connectors"\]\n(.*?)```', GUIDE, re.DOTALL)
    return code, entry.replace('"', "")  # as installers write it


def install(folder: Path) -> None:
    """Lay out two packages as an installer would: the guide's, and one that is broken."""
    code, entry = code_of_guide()
    (folder / "muster_shout.py").write_text(code)
    for name, entries in (("shout", entry), ("broken", "broken = no_such_module:Connector\n")):
        info = folder / f"muster_{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: muster-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[muster.connectors]\n{entries}")


class Comfy:
    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.contract.connectors.comfyui_stub", str(self.port)]
        self._process = subprocess.Popen(command, cwd=ROOT)
        eventually_sync(lambda: bool(urllib.request.urlopen(f"{self.url}/prompt", timeout=5).read()), 30)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def comfy() -> Iterator[Comfy]:
    found = Comfy()
    found.start()
    yield found
    found.kill()


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory, comfy: Comfy) -> Iterator[ControlPlane]:
    folder = tmp_path_factory.mktemp("plane")
    site = folder / "site"
    site.mkdir()
    install(site)
    node_file = folder / "node.toml"
    node_file.write_text(NODE_FILE.format(port=comfy.port))
    plane = ControlPlane(
        folder,
        "up",
        env={
            "PYTHONPATH": f"{site}:{ROOT / 'src'}",
            "MUSTER_MODEL": "none",
            "MUSTER_DISCOVER": "false",
            "MUSTER_NODE_ID": "n1",
            "MUSTER_NODE_FILE": str(node_file),
            "MUSTER_ATTACH": f"comfyui={comfy.url}",
            "MUSTER_HEARTBEAT_INTERVAL_S": "0.5",
            "MUSTER_JOB_RETRY_BASE_S": "0.1",
            "MUSTER_STOP_TIMEOUT_S": "2",
        },
    )
    try:
        plane.start()
        eventually_sync(lambda: bool(available(plane, "shout")), 30)
        yield plane
    finally:
        plane.kill()


def available(plane: ControlPlane, service: str) -> list[str]:
    found = plane.get("/api/connectors")["connectors"]
    places = [place for entry in found for place in entry["available"] if place["service"] == service]
    return [node_id for place in places for node_id in place["node_ids"]]


def outcome(plane: ControlPlane, service: str, payload: Any) -> dict[str, Any]:
    job_id = plane.post("/api/jobs", {"service_required": service, "payload": payload})["job_id"]

    def ended() -> dict[str, Any] | None:
        job = plane.job(job_id)
        return job if job["status"] in {"completed", "failed", "timeout"} else None

    job = eventually_sync(ended, 30)
    assert job is not None
    return job


def done(plane: ControlPlane, service: str, payload: Any) -> Any:
    job = outcome(plane, service, payload)
    assert job["status"] == "completed", job
    return job["result"]


def content(plane: ControlPlane, url: str) -> bytes:
    request = urllib.request.Request(plane.url + url)
    plane._authorize(request)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


def test_the_connector_of_the_guide_is_as_short_as_it_says() -> None:
    assert sum(bool(line.strip()) for line in code_of_guide()[0].splitlines()) <= 30


def test_a_packages_own_connector_runs_and_keeps_a_file(plane: ControlPlane) -> None:
    result = done(plane, "shout", {"text": "hello"})
    assert result["text"] == "HELLO"
    assert content(plane, result["file"]["url"]) == b"HELLO"
    with pytest.raises(AssertionError, match=r"payload\.text"):
        plane.post("/api/jobs", {"service_required": "shout", "payload": {"text": ""}})
    shown = {entry["name"]: entry for entry in plane.get("/api/connectors")["connectors"]}
    assert shown["shout"]["schema"]["properties"]["text"] == {"type": "string", "minLength": 1}


def test_a_broken_one_and_a_missing_program_are_named_and_harm_nothing(plane: ControlPlane) -> None:
    assert "no_such_module" in plane.get("/api/connectors")["broken"]["broken"]

    def reason() -> str | None:
        text: str | None = plane.get("/api/v1/nodes/n1").get("reason")
        return text

    told = eventually_sync(reason, 20)
    assert told is not None
    assert "the connector broken (no_such_module:Connector) cannot be used" in told
    assert "command:missing is not offered" in told
    assert available(plane, "command:missing") == []


def test_services_and_programs_of_the_node_file_are_run(plane: ControlPlane) -> None:
    assert done(plane, "http:thumbs", {}) == {"exec_info": {"queue_remaining": 0}}
    sent = urllib.request.Request(f"{plane.url}/api/files/in.txt", data=b"text", method="PUT")
    sent.add_header("Content-Type", "application/octet-stream")
    url = plane._call(sent)["url"]
    result = done(plane, "command:copy", {"args": {"source": url}})
    assert content(plane, result["files"][0]["url"]) == b"text"


def test_comfyui_is_offered_while_it_runs_and_its_jobs_wait_for_it_else(plane: ControlPlane, comfy: Comfy) -> None:
    picture = {"prompt": {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "cat"}}}}
    eventually_sync(lambda: available(plane, "comfyui") == ["n1"], 20)
    result = done(plane, "comfyui", picture)
    (image,) = result["outputs"]["1"]["images"]
    assert content(plane, image["url"]).startswith(b"\x89PNG")

    waits = {"prompt": {"1": {"class_type": "Wait", "inputs": {}}}}
    running = plane.post("/api/jobs", {"service_required": "comfyui", "payload": waits, "max_retries": 50})["job_id"]
    eventually_sync(lambda: plane.job(running)["status"] == "in_progress", 20)
    comfy.kill()
    eventually_sync(lambda: available(plane, "comfyui") == [], 30)
    eventually_sync(lambda: plane.job(running)["status"] in {"pending", "unworkable"}, 30)
    assert 1 <= plane.job(running)["retry_count"] <= 3  # looked at when it failed, not only at its turn
    plane.post(f"/api/jobs/{running}/cancel")
    later = plane.post("/api/jobs", {"service_required": "comfyui", "payload": picture})["job_id"]
    eventually_sync(lambda: plane.job(later)["status"] == "unworkable", 20)
    comfy.start()
    eventually_sync(lambda: plane.job(later)["status"] == "completed", 40)
