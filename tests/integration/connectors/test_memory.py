"""Model servers that take models into memory and let go of them."""

from typing import Any

import aiohttp
import pytest
from aiohttp import web

from muster.connectors.comfyui.connector import ComfyUIConnector
from muster.connectors.ollama import OllamaConnector
from muster.connectors.vllm import VllmConnector
from muster.domain.service import Service, ServiceStatus
from muster.errors import Conflict, UpstreamFailed
from tests.integration.models.engines import MadeOllama, serving


class MadeVllm:
    """One that was started with its sleep mode, or without."""

    def __init__(self, *, sleeps: bool) -> None:
        self.asleep = False
        paths = {"/sleep": True, "/wake_up": False} if sleeps else {}
        self.routes = [web.get("/v1/models", self._models)]
        self.routes += [web.post(path, self._turn(asleep=asleep)) for path, asleep in paths.items()]
        self.routes += [web.get("/is_sleeping", self._state)] if sleeps else []

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", "owned_by": "vllm"}]})

    async def _state(self, _: web.Request) -> web.Response:
        return web.json_response({"is_sleeping": self.asleep})

    def _turn(self, *, asleep: bool) -> Any:
        async def turn(_: web.Request) -> web.Response:
            self.asleep = asleep
            return web.Response()

        return turn


def service(connector: str, url: str) -> Service:
    return Service(name=connector, connector=connector, status=ServiceStatus.RUNNING, url=url)


async def test_a_vllm_sleeps_and_wakes() -> None:
    made = MadeVllm(sleeps=True)
    async with serving(*made.routes) as url, aiohttp.ClientSession() as session:
        vllm = VllmConnector(session)
        assert (await vllm.probe(url)).models[0].resident
        await vllm.unload_model(service("vllm", url), "m")
        assert (await vllm.probe(url)).models[0].resident is False
        await vllm.load_model(service("vllm", url), "m", stays=True)
        assert (await vllm.probe(url)).models[0].resident


async def test_one_without_a_sleep_mode_says_how_to_get_it() -> None:
    made = MadeVllm(sleeps=False)
    async with serving(*made.routes) as url, aiohttp.ClientSession() as session:
        vllm = VllmConnector(session)
        assert (await vllm.probe(url)).models[0].resident
        with pytest.raises(Conflict, match="--enable-sleep-mode"):
            await vllm.unload_model(service("vllm", url), "m")


async def test_an_ollama_loads_for_as_long_as_it_is_told() -> None:
    async with MadeOllama(4000, small=1000, huge=9000).running() as made, aiohttp.ClientSession() as session:
        ollama, where = OllamaConnector(session), service("ollama", made.url)
        await ollama.load_model(where, "small", stays=False)
        assert made.loaded == {"small": None}
        await ollama.load_model(where, "small", stays=True)
        assert made.loaded == {"small": -1}
        found = {model.name: (model.resident, model.memory_mb) for model in (await ollama.probe(made.url)).models}
        assert found == {"small": (True, 1000), "huge": (False, None)}
        with pytest.raises(UpstreamFailed, match="out of memory"):
            await ollama.load_model(where, "huge", stays=False)


async def test_a_comfyui_that_will_not_let_go_is_told_of() -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"error": "busy"}, status=500)

    async with serving(web.post("/free", refuse)) as url, aiohttp.ClientSession() as session:
        with pytest.raises(UpstreamFailed, match="busy"):
            await ComfyUIConnector(session).free_memory(service("comfyui", url))
