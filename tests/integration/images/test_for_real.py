"""Pictures through real processes: OpenAI's client, a gateway in two of them, an agent, and ComfyUI's protocol."""

import base64
import socket
import urllib.request
from collections.abc import Iterator

import openai
import pytest

from tests.artist import write_model
from tests.contract.connectors.comfyui_stub import PICTURE
from tests.integration.connectors.test_whole_way import Comfy, available
from tests.integration.gateway.wire import post
from tests.integration.images.conftest import pictures
from tests.muster_process import ControlPlane
from tests.waiting import eventually_sync

NEEDS = {"requirements": {"models": ["sd15.safetensors"]}}
SAVE = {"class_type": "SaveImage", "inputs": {"filename_prefix": "{seed}", "text": "{prompt}"}}
WAIT = {"class_type": "Wait", "inputs": {"text": "{prompt}"}}
TRIES_MAX = 40  # until the kernel has given a connection to each of two processes
LEAVERS = 3


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    comfy = Comfy()
    plane = ControlPlane(
        tmp_path_factory.mktemp("plane"),
        "up",
        env={
            "MUSTER_MODEL": "none",
            "MUSTER_DISCOVER": "false",
            "MUSTER_NODE_ID": "n1",
            "MUSTER_ATTACH": f"comfyui={comfy.url}",
            "MUSTER_HEARTBEAT_INTERVAL_S": "0.5",
            "MUSTER_STOP_TIMEOUT_S": "2",
            "MUSTER_GATEWAY_WORKERS": "2",
            "MUSTER_WORKER_SLOTS": "4",
        },
    )
    write_model(plane.data_dir / "image_models", "cat", {"muster": NEEDS, "9": SAVE})
    write_model(plane.data_dir / "image_models", "slow", {"muster": NEEDS, "1": WAIT, "9": SAVE})
    try:
        comfy.start()
        plane.start()
        eventually_sync(lambda: available(plane, "comfyui") == ["n1"], 30)
        eventually_sync(lambda: plane.get("/api/v1/system")["gateway_processes"][0]["pid"], 30)
        yield plane
    finally:
        plane.kill()
        comfy.kill()


def client(plane: ControlPlane) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{plane.url}/v1", api_key="none", max_retries=0, timeout=30.0)


def test_a_file_in_the_folder_is_a_model_whichever_process_is_asked(plane: ControlPlane) -> None:
    served: set[str] = set()
    for _ in range(TRIES_MAX):
        with client(plane) as asking:
            assert [model.id for model in asking.models.list()] == ["cat", "slow"]
            raw = asking.images.with_raw_response.generate(model="cat", prompt="a cat", response_format="b64_json")
        (inlined,) = pictures(raw.parse())
        assert base64.b64decode(inlined.b64_json or "").startswith(PICTURE)
        served.add(raw.headers["x-correlation-id"].rpartition("-")[0])
        if len(served) == 2:
            break
    assert len(served) == 2


def test_a_link_leads_to_the_picture(plane: ControlPlane) -> None:
    with client(plane) as asking:
        (linked,) = pictures(asking.images.generate(model="cat", prompt="a cat", extra_body={"seed": 5}))
    with urllib.request.urlopen(linked.url or "", timeout=10) as got:
        assert got.headers["content-type"] == "image/png"
        assert got.read().startswith(PICTURE + b"5_")


def test_who_leaves_has_no_jobs_any_more_whichever_process_it_asked(plane: ControlPlane) -> None:
    def count(status: str) -> int:
        return int(plane.get("/api/jobs")["counts"].get(status, 0))

    callers = [socket.create_connection(("127.0.0.1", plane.port)) for _ in range(LEAVERS)]
    for caller in callers:
        caller.sendall(post("/v1/images/generations", {"model": "slow", "prompt": "a cat"}))
    eventually_sync(lambda: count("in_progress") == LEAVERS, 20)
    for caller in callers:
        caller.close()
    eventually_sync(lambda: count("cancelled") == LEAVERS, 20)
