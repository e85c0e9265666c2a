"""Phase 4: the gateway knows the fleet and says which of its machines it would use."""

import urllib.request
from pathlib import Path

from tests.conformance.registration.conftest import FAST, NEBULA_IP, NODE, Fleet
from tests.muster_process import ControlPlane


def test_4_1_the_log_names_the_fleet_api(fleet: Fleet) -> None:
    assert f"Fleet API: {fleet.plane.url}" in fleet.plane.log
    assert "connection error" not in fleet.plane.log.lower()


def test_4_2_the_fleet_has_a_best_worker(fleet: Fleet) -> None:
    seen = fleet.plane.get("/_/fleet")
    assert seen["enabled"] is True
    assert seen["gpu_workers"] > 0
    best = seen["best_worker"]
    assert (best["id"], best["nebula_ip"]) == (NODE, NEBULA_IP)
    assert best["ollama_url"] == f"http://{NEBULA_IP}:11434"


def test_4_2_the_status_names_the_best_worker_as_the_remote(fleet: Fleet) -> None:
    best = fleet.plane.get("/_/fleet")["best_worker"]
    assert fleet.plane.get("/_/status")["remote"]["url"] == best["ollama_url"]


def test_4_3_tags_answer_and_name_who_answered(fleet: Fleet) -> None:
    with urllib.request.urlopen(f"{fleet.plane.url}/api/tags", timeout=10) as answer:
        assert answer.status == 200
        assert answer.headers["X-Muster-Worker"]
    assert isinstance(fleet.plane.get("/api/tags")["models"], list)


def test_common_issues_without_a_fleet_api_the_fleet_is_shown_as_disabled(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, env=FAST | {"FLEET_API_URL": "", "MUSTER_GRPC_LISTEN": "none"})
    try:
        plane.start()
        assert plane.get("/_/fleet")["enabled"] is False
    finally:
        plane.kill()
