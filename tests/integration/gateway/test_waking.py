"""Requests whose model is at rest: they wait for a machine, are heard meanwhile, and are answered from it."""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import ollama as ollama_client
import openai
import pytest

from muster.domain.service import Dialect
from muster.errors import ModelAsleep, MusterError
from muster.gateway import GatewayLimits
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import TOKENS, Asked, Engine, llama, ollama, reset
from tests.integration.gateway.fleet import BOTH, EMBED, FleetTwin, worker
from tests.integration.gateway.wire import chat, get, post
from tests.waiting import eventually

SPEAKS_SOON = GatewayLimits(wake_keepalive_s=0.02)
OPENAI = "/v1/chat/completions"
OLLAMA = "/api/chat"
TEXT = "".join(TOKENS)


class WakerTwin:
    """Has one model at rest, which a test wakes, or fails to."""

    def __init__(self, model: str = "smollm2-135m") -> None:
        self.model = model
        self.asked = 0
        self.given_up = 0
        self._over = asyncio.Event()
        self._problem: MusterError | None = None

    def wake(self, model: str) -> Awaitable[None] | None:
        if model != self.model:
            return None
        self.asked += 1
        return self._wait()

    def models(self) -> list[str]:
        return [self.model]

    def why(self, _: str) -> str:
        return "is being loaded on a/ollama"

    def end(self, problem: MusterError | None = None) -> None:
        self._problem = problem
        self._over.set()

    async def _wait(self) -> None:
        try:
            await self._over.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self._problem is not None:
            raise self._problem


def busy_elsewhere(url: str = "http://127.0.0.1:9") -> FleetTwin:
    """Return a fleet in which a worker is alive that has other models."""
    return FleetTwin(worker(url, "local", EMBED))


async def waiting(door: Door, count: int = 1) -> None:
    await eventually(lambda: door.gateway.in_flight == count)


@pytest.mark.parametrize(
    ("path", "content_type", "silence", "end"),
    [
        (OPENAI, "text/event-stream", b": ", b"data: [DONE]\n\n"),
        (OLLAMA, "application/x-ndjson", b" ", b'"done":true'),
    ],
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_who_streams_is_kept_waiting_in_words_of_its_own_dialect(
    path: str, content_type: str, silence: bytes, end: bytes, version: str
) -> None:
    waker, fleet = WakerTwin(), busy_elsewhere()
    async with (
        Engine() as engine,
        opened(fleet, limits=SPEAKS_SOON, waker=waker) as door,
        await door.wire() as wire,
    ):
        wire.send(post(path, chat(stream=True), version=version))
        status, headers = await wire.head()
        assert (status, headers["content-type"].split(";")[0]) == (200, content_type)
        first = await (wire.chunk() if version == "1.1" else wire.reader.read(2))
        assert first.startswith(silence)
        fleet.become(worker(engine.url))
        waker.end()
        body = await (wire._body(headers) if version == "1.1" else wire.rest())

    said = first + body
    assert end in said.replace(b'": true', b'":true').replace(b'": ', b'":')
    assert (waker.asked, waker.given_up) == (1, 0)
    assert door.reserved == {}
    assert door.finished[-1].status == 200


@pytest.mark.parametrize("path", [OPENAI, OLLAMA])
async def test_an_answer_in_one_piece_is_waited_for_in_silence_and_has_its_own_status(path: str) -> None:
    waker, fleet = WakerTwin(), busy_elsewhere()
    async with (
        Engine() as engine,
        opened(fleet, limits=SPEAKS_SOON, waker=waker) as door,
        await door.wire() as wire,
    ):
        wire.send(post(path, chat()))
        await waiting(door)
        fleet.become(worker(engine.url))
        waker.end()
        answer = await wire.answer()

    assert answer.status == 200
    assert answer.headers["x-muster-worker"] == "node-a/llama"
    assert TEXT in answer.body.decode()


async def test_the_clients_of_openai_and_ollama_take_what_is_said_meanwhile_for_nothing() -> None:
    waker, fleet = WakerTwin(), busy_elsewhere()
    async with Engine(ollama) as engine, opened(fleet, limits=SPEAKS_SOON, waker=waker) as door:

        async def by_openai() -> str:
            async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="none") as client:
                stream = await client.chat.completions.create(
                    model="smollm2-135m", messages=[{"role": "user", "content": "Tell."}], stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

        async def by_ollama() -> str:
            client = ollama_client.AsyncClient(host=door.url)
            stream = await client.chat(
                model="smollm2-135m", messages=[{"role": "user", "content": "Tell."}], stream=True
            )
            said = "".join([part.message.content or "" async for part in stream])
            await client._client.aclose()
            return said

        tasks = [asyncio.create_task(by_openai()), asyncio.create_task(by_ollama())]
        waits: Any = door.gateway._relay.active
        await eventually(lambda: [wait.delivery.began for wait in waits] == [True, True])
        fleet.become(worker(engine.url, dialects=BOTH))
        waker.end()

        assert await asyncio.gather(*tasks) == [TEXT, TEXT]


@pytest.mark.parametrize("path", [OPENAI, OLLAMA])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_is_told_in_the_callers_dialect_with_when_to_try_again(path: str, stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    waker = WakerTwin()
    async with opened(busy_elsewhere(), waker=waker) as door, await door.wire() as wire:
        wire.send(post(path, chat(stream=stream)))
        await waiting(door)
        waker.end(ModelAsleep("the zone is full", retry_after_s=30))
        answer = await wire.answer()

    assert (answer.status, answer.headers["retry-after"]) == (503, "30")
    error = answer.json["error"]
    assert (error["message"], error["code"]) == ("the zone is full", "model_asleep") if path == OPENAI else error


@pytest.mark.parametrize("path", [OPENAI, OLLAMA])
async def test_a_failure_after_the_head_is_an_error_within_the_stream(path: str) -> None:
    waker = WakerTwin()
    async with opened(busy_elsewhere(), limits=SPEAKS_SOON, waker=waker) as door, await door.wire() as wire:
        wire.send(post(path, chat(stream=True)))
        _, headers = await wire.head()
        waker.end(ModelAsleep("the zone is full", retry_after_s=30))
        body = await wire._body(headers)

    last = body.decode().strip().splitlines()[-1]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert "the zone is full" in (error["message"] if path == OPENAI else error)
    assert b"[DONE]" not in body
    assert door.finished[-1].status == 503


async def test_who_leaves_is_dropped_and_the_others_stay() -> None:
    waker, fleet = WakerTwin(), busy_elsewhere()
    async with (
        Engine() as engine,
        opened(fleet, waker=waker) as door,
        await door.wire() as leaving,
        await door.wire() as staying,
    ):
        leaving.send(post(OPENAI, chat()))
        staying.send(post(OPENAI, chat()))
        await waiting(door, 2)
        leaving.abort()
        await waiting(door, 1)
        await eventually(lambda: waker.given_up == 1)
        fleet.become(worker(engine.url))
        waker.end()
        answer = await staying.answer()

    assert answer.status == 200
    assert len(engine.requests) == 1
    assert sorted(record.status for record in door.finished) == [200, 499]


async def test_only_so_many_wait_for_one_model() -> None:
    waker = WakerTwin()
    async with opened(busy_elsewhere(), limits=GatewayLimits(wake_waiting_max=2), waker=waker) as door:
        wires = [await door.wire() for _ in range(3)]
        for wire in wires[:2]:
            wire.send(post(OPENAI, chat()))
        await waiting(door, 2)
        wires[2].send(post(OPENAI, chat()))
        refused = await wires[2].answer()
        for wire in wires:
            wire.abort()
        await waiting(door, 0)
        await eventually(lambda: waker.given_up == 2)
        async with await door.wire() as wire:
            wire.send(post(OPENAI, chat()))
            await waiting(door, 1)

    assert (refused.status, refused.headers["retry-after"]) == (429, "30")
    assert refused.json["error"]["code"] == "queue_full"


async def test_a_model_that_nobody_can_wake_is_not_found_as_ever() -> None:
    waker = WakerTwin("another")
    async with opened(busy_elsewhere(), waker=waker) as door, await door.wire() as wire:
        wire.send(post(OPENAI, chat()))
        answer = await wire.answer()

    assert (answer.status, waker.asked) == (404, 0)


async def test_who_asks_for_certain_workers_wakes_no_other() -> None:
    waker = WakerTwin()
    async with opened(busy_elsewhere(), waker=waker) as door, await door.wire() as wire:
        wire.send(post(OPENAI, chat(), "x-muster-node: node-z"))
        answer = await wire.answer()

    assert answer.status in {404, 503}
    assert waker.asked == 0


@pytest.mark.parametrize(("path", "name"), [("/v1/models", "data"), ("/api/tags", "models"), ("/api/ps", "models")])
async def test_what_can_be_woken_is_listed_but_not_as_running(path: str, name: str) -> None:
    async with opened(busy_elsewhere(), waker=WakerTwin()) as door, await door.wire() as wire:
        wire.send(get(path))
        listed = [model.get("id") or model["name"] for model in (await wire.answer()).json[name]]

    assert listed == ([] if path == "/api/ps" else ["minilm:latest", "smollm2-135m"])


async def test_what_is_served_is_listed_once_though_it_could_be_woken() -> None:
    fleet = FleetTwin(worker("http://127.0.0.1:9", "local"))
    async with opened(fleet, waker=WakerTwin("smollm2-135m:latest")) as door, await door.wire() as wire:
        wire.send(get("/v1/models"))
        listed = [model["id"] for model in (await wire.answer()).json["data"]]

    assert listed == ["minilm:latest", "smollm2-135m"]


async def test_the_wait_is_longer_than_an_engine_may_take_to_begin() -> None:
    waker, fleet = WakerTwin(), busy_elsewhere()
    limits = GatewayLimits(first_byte_timeout_s=0.02, wake_keepalive_s=0.04)
    async with Engine() as engine, opened(fleet, limits=limits, waker=waker) as door, await door.wire() as wire:
        wire.send(post(OPENAI, chat(stream=True)))
        _, headers = await wire.head()
        for _ in range(3):
            assert (await wire.chunk()).startswith(b":")
        fleet.become(worker(engine.url))
        waker.end()
        assert b"[DONE]" in await wire._body(headers)


async def test_what_was_woken_and_is_gone_again_is_an_error_and_no_second_wait() -> None:
    waker = WakerTwin()
    async with opened(FleetTwin(), waker=waker) as door, await door.wire() as wire:
        wire.send(post(OPENAI, chat()))
        await waiting(door)
        waker.end()
        answer = await wire.answer()

    assert (answer.status, answer.json["error"]["code"]) == (503, "model_asleep")
    assert waker.asked == 1


@pytest.mark.parametrize(("path", "dialects"), [(OPENAI, BOTH), (OLLAMA, BOTH), (OLLAMA, (Dialect.OPENAI,))])
async def test_an_engines_refusal_after_the_head_is_an_error_within_the_stream(
    path: str, dialects: tuple[Dialect, ...]
) -> None:
    async def refuse(asked: Asked) -> None:
        asked.reply({"error": {"message": "the context is too long"}}, 400)

    waker, fleet = WakerTwin(), busy_elsewhere()
    async with (
        Engine(refuse) as engine,
        opened(fleet, limits=SPEAKS_SOON, waker=waker) as door,
        await door.wire() as wire,
    ):
        wire.send(post(path, chat(stream=True)))
        _, headers = await wire.head()
        fleet.become(worker(engine.url, dialects=dialects))
        waker.end()
        body = await wire._body(headers)

    assert b"the context is too long" in body
    assert b"400" not in body.splitlines()[0]


async def test_after_the_head_and_before_the_first_word_another_worker_may_still_answer() -> None:
    waker, fleet = WakerTwin(), busy_elsewhere()
    async with (
        Engine(reset) as broken,
        Engine(llama) as good,
        opened(fleet, limits=SPEAKS_SOON, waker=waker) as door,
        await door.wire() as wire,
    ):
        wire.send(post(OPENAI, chat(stream=True)))
        _, headers = await wire.head()
        fleet.become(worker(broken.url, "node-a"), worker(good.url, "node-b"))
        waker.end()
        body = await wire._body(headers)

    assert body.endswith(b"data: [DONE]\n\n")
    assert door.finished[-1].worker == "node-b/llama"


async def test_a_load_without_a_prompt_wakes_as_well() -> None:
    waker, fleet = WakerTwin(), busy_elsewhere()
    async with opened(fleet, limits=SPEAKS_SOON, waker=waker) as door, await door.wire() as wire:
        wire.send(post("/api/generate", {"model": "smollm2-135m"}))
        _, headers = await wire.head()
        fleet.become(worker("http://127.0.0.1:9"))
        waker.end()
        lines = (await wire._body(headers)).decode().strip().splitlines()

    assert json.loads(lines[-1])["done_reason"] == "load"


async def test_a_stop_ends_every_wait_with_an_error() -> None:
    waker = WakerTwin()
    async with opened(busy_elsewhere(), waker=waker) as door, await door.wire() as wire:
        wire.send(post(OPENAI, chat()))
        await waiting(door)
        door.gateway.end_all()
        answer = await wire.answer()
        await eventually(lambda: waker.given_up == 1)

    assert (answer.status, answer.json["error"]["code"]) == (503, "shutting_down")
