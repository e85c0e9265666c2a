"""The simulated ComfyUI for development, driven by the connector as the real one is."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from muster.connectors.catalog import identify
from muster.connectors.comfyui.connector import ComfyUIConnector
from muster.connectors.comfyui.server import ComfyLimits
from muster.connectors.comfyui.simulated import VERSION
from muster.connectors.comfyui.simulated.server import SimulatedComfyUI
from muster.domain.image import ImageOrder
from muster.domain.job import Progress, encode_result
from muster.domain.service import Service, ServiceStatus
from muster.errors import InvalidInput
from muster.images.output import pictures_of
from muster.images.workflow import read_model
from tests.contract.connectors.makers import KeptFiles, claimed, unheard
from tests.waiting import eventually

QUICK = ComfyLimits(look_every_s=0.05, lost_s=0.2)
LONG_S = 3600
EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "image_models" / "sd15.json"


def graph(steps: int = 4, prefix: str = "cat") -> dict[str, Any]:
    """Return the graph that people begin with."""
    nodes = {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": "sd15.safetensors"}),
        "2": ("CLIPTextEncode", {"text": "a cat", "clip": ["1", 1]}),
        "3": ("EmptyLatentImage", {"width": 64, "height": 64}),
        "4": (
            "KSampler",
            {"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0], "steps": steps},
        ),
        "5": ("VAEDecode", {"samples": ["4", 0], "vae": ["1", 2]}),
        "6": ("SaveImage", {"images": ["5", 0], "filename_prefix": prefix}),
    }
    return {"prompt": {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}}


class Running:
    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.service = Service(name="comfyui", connector="comfyui", status=ServiceStatus.RUNNING, url=url)


@pytest.fixture
async def run_at(tmp_path: Path) -> AsyncIterator[Any]:
    runners = []

    async def start(step_s: float = 0.001) -> Running:
        runner = web.AppRunner(SimulatedComfyUI(tmp_path, gpu=3, step_s=step_s).app(), shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return Running(tmp_path, f"http://127.0.0.1:{runner.addresses[0][1]}")

    yield start
    for runner in runners:
        await runner.cleanup()


async def read(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url) as answer:
        assert answer.status == 200
        return await answer.json()


async def test_it_is_taken_for_comfyui_and_says_that_it_is_none(
    session: aiohttp.ClientSession, run_at: Any, tmp_path: Path
) -> None:
    comfyui = await run_at()
    (tmp_path / "models" / "checkpoints").mkdir(parents=True)
    (tmp_path / "models" / "checkpoints" / "sd15.safetensors").touch()
    found = await identify(session, comfyui.url)
    assert found is not None
    assert (found.connector, [model.name for model in found.models]) == ("comfyui", ["sd15.safetensors"])
    for path in ("/", "/health"):
        assert (await read(session, comfyui.url + path))["simulated"] is True
    stats = await read(session, f"{comfyui.url}/system_stats")
    assert stats["system"]["comfyui_version"] == VERSION
    assert stats["devices"][0]["name"] == "simulated GPU 3"
    assert "KSampler" in await read(session, f"{comfyui.url}/object_info")
    assert list(await read(session, f"{comfyui.url}/object_info/SaveImage")) == ["SaveImage"]


async def test_a_job_has_progress_and_a_picture(session: aiohttp.ClientSession, run_at: Any) -> None:
    comfyui = await run_at(step_s=0.02)
    heard, files = list[Progress](), KeptFiles()
    async with asyncio.timeout(10):
        result = await ComfyUIConnector(session, QUICK).run(
            claimed(graph(), "comfyui"), comfyui.service, heard.append, files
        )
    (image,) = result["outputs"]["6"]["images"]
    assert image.type == "image/png"
    ((name, data),) = files.kept.items()
    assert name.startswith("cat_")
    assert data.startswith(b"\x89PNG")
    assert (comfyui.folder / "output" / name).read_bytes() == data
    fractions = [progress.fraction or 0.0 for progress in heard]
    assert fractions == sorted(fractions)
    assert "KSampler (node 4): 4 of 4" in [progress.message for progress in heard]


async def test_the_example_of_an_image_model_gives_as_many_pictures_as_are_asked_for(
    session: aiohttp.ClientSession, run_at: Any
) -> None:
    comfyui, files = await run_at(), KeptFiles()
    (payload,) = read_model("sd15", EXAMPLE.read_bytes()).payloads(ImageOrder(model="sd15", prompt="a cat", n=2), 7)
    async with asyncio.timeout(10):
        result = await ComfyUIConnector(session, QUICK).run(
            claimed(payload, "comfyui"), comfyui.service, lambda _: None, files
        )
    assert pictures_of(encode_result(result)) == result["outputs"]["9"]["images"]
    assert len(files.kept) == 2


async def test_messages_come_in_comfyuis_order(session: aiohttp.ClientSession, run_at: Any) -> None:
    comfyui = await run_at()
    async with session.ws_connect(f"{comfyui.url}/ws?clientId=me") as socket:
        async with session.post(f"{comfyui.url}/prompt", json=graph(steps=1) | {"client_id": "me"}) as answer:
            prompt_id = (await answer.json())["prompt_id"]
        messages: list[dict[str, Any]] = []
        async with asyncio.timeout(10):
            while not (messages and messages[-1]["type"] == "executing" and messages[-1]["data"]["node"] is None):
                messages.append(await socket.receive_json())
    kinds = [message["type"] for message in messages]
    assert kinds[0] == "status"
    own = [kind for kind in kinds if kind != "status"]
    assert own[:3] == ["execution_start", "execution_cached", "executing"]
    assert own[-4:] == ["executing", "executed", "execution_success", "executing"]
    assert kinds[-2:] == ["status", "executing"]
    assert {message["data"]["prompt_id"] for message in messages if message["type"] != "status"} == {prompt_id}


async def test_what_was_done_before_is_cached(session: aiohttp.ClientSession, run_at: Any) -> None:
    comfyui = await run_at()
    connector = ComfyUIConnector(session, QUICK)
    for _ in range(2):
        async with asyncio.timeout(10):
            await connector.run(claimed(graph(), "comfyui"), comfyui.service, unheard, KeptFiles())
    first, second = (await read(session, f"{comfyui.url}/history")).values()
    cached = [
        next(sorted(data["nodes"]) for kind, data in entry["status"]["messages"] if kind == "execution_cached")
        for entry in (first, second)
    ]
    assert cached == [[], ["1", "2", "3", "4", "5", "6"]]


async def test_a_refused_graph_is_final(session: aiohttp.ClientSession, run_at: Any) -> None:
    comfyui = await run_at()
    job = {"prompt": {"1": {"class_type": "SaveImage", "inputs": {}}}}
    with pytest.raises(InvalidInput, match="Required input is missing: images"):
        await ComfyUIConnector(session, QUICK).run(claimed(job, "comfyui"), comfyui.service, unheard, KeptFiles())


async def test_a_cancelled_job_leaves_nothing_that_runs_or_waits(session: aiohttp.ClientSession, run_at: Any) -> None:
    comfyui = await run_at(step_s=LONG_S)
    connector = ComfyUIConnector(session, QUICK)
    runs = [
        asyncio.create_task(
            connector.run(claimed(graph(prefix=name), "comfyui"), comfyui.service, unheard, KeptFiles())
        )
        for name in ("runs", "waits")
    ]

    async def both() -> bool:
        queue = await read(session, f"{comfyui.url}/queue")
        return len(queue["queue_running"]) == len(queue["queue_pending"]) == 1

    await eventually(both)
    assert (await read(session, f"{comfyui.url}/prompt"))["exec_info"]["queue_remaining"] == 2
    for run in reversed(runs):
        run.cancel()
    await asyncio.gather(*runs, return_exceptions=True)

    async def idle() -> bool:
        return bool(await read(session, f"{comfyui.url}/queue") == {"queue_running": [], "queue_pending": []})

    await eventually(idle)


async def test_its_queue_can_be_cleared(session: aiohttp.ClientSession, run_at: Any) -> None:
    comfyui = await run_at(step_s=LONG_S)
    for _ in range(3):
        await session.post(f"{comfyui.url}/prompt", json=graph())
    await session.post(f"{comfyui.url}/queue", json={"clear": True})
    assert (await read(session, f"{comfyui.url}/queue"))["queue_pending"] == []
    await session.post(f"{comfyui.url}/interrupt")
    await session.post(f"{comfyui.url}/free", json={})
    await eventually(lambda: read(session, f"{comfyui.url}/history"))
    (ended,) = (await read(session, f"{comfyui.url}/history")).values()
    assert ended["status"]["status_str"] == "error"


async def test_pictures_are_taken_and_given_and_no_other_files(
    session: aiohttp.ClientSession, run_at: Any, tmp_path: Path
) -> None:
    comfyui = await run_at()
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("image", b"picture", filename="../a.png")
    async with session.post(f"{comfyui.url}/upload/image", data=form) as answer:
        assert (await answer.json())["name"] == "a.png"
    assert (tmp_path / "input" / "a.png").read_bytes() == b"picture"
    async with session.get(f"{comfyui.url}/view?type=input&filename=a.png") as answer:
        assert await answer.read() == b"picture"
    (tmp_path / "secret").write_text("secret")
    for query in ("type=input&filename=../secret", "type=..&filename=secret", "type=input&filename=..", "filename="):
        async with session.get(f"{comfyui.url}/view?{query}") as answer:
            assert answer.status == 404
