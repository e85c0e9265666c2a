"""Who is let in to which model, and what each answer is found to have cost, through the real gateway."""

import asyncio
import random
from collections.abc import AsyncIterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from muster.access.allowance import Allowance
from muster.access.roles import Role
from muster.access.tokens import Wanted
from muster.control.access import Access
from muster.domain.usage import Use
from muster.stores.memory import MemoryStore
from muster.system import SystemClock
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import TOKENS, Asked, Engine, ollama, stall_after
from tests.integration.gateway.fleet import BOTH, CHAT, EMBED, FleetTwin, worker
from tests.integration.gateway.wire import Answer, get, post
from tests.waiting import eventually

SAID: list[ChatCompletionMessageParam] = [{"role": "user", "content": "x" * 40}]
ASK: dict[str, object] = {"model": CHAT.name, "messages": SAID}
BOOT = "authorization: Bearer boot"
WATTS = 3600.0


@pytest.fixture
async def access() -> AsyncIterator[Access]:
    store = MemoryStore(SystemClock())
    access = Access(store.tokens, store.bus, SystemClock(), random.Random(5), bootstrap="boot", requests_per_s_max=0.0)
    await access.start()
    yield access
    await access.stop()


@pytest.fixture
async def door(engine: Engine, access: Access) -> AsyncIterator[Door]:
    fleet = FleetTwin(worker(engine.url))
    async with opened(fleet, authenticate=access.refusal, account_of=access.account, watts=lambda _: WATTS) as door:
        yield door


async def token_with(access: Access, **limits: object) -> str:
    _, text = await access.create(
        Wanted(name="shop", role=Role.CLIENT, allowance=Allowance(**limits))  # type: ignore[arg-type]  # a shorthand
    )
    return text


def client_of(door: Door, token: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key=token, max_retries=0)


async def ask(door: Door, request: bytes) -> Answer:
    async with await door.wire() as wire:
        wire.send(request)
        return await wire.answer()


async def last_use(door: Door) -> Use:
    await eventually(lambda: bool(door.finished))
    use = door.finished[-1].use
    assert use is not None
    return use


def tokens_of(use: Use) -> tuple[int, int, bool]:
    return use.prompt_tokens, use.completion_tokens, use.estimated


# --- what an answer cost ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/chat/completions", ASK, (7, 5, False)),
        ("/v1/chat/completions", ASK | {"stream": True, "stream_options": {"include_usage": True}}, (7, 5, False)),
        ("/v1/completions", {"model": CHAT.name, "prompt": "hi"}, (7, 5, False)),
        ("/v1/embeddings", {"model": EMBED.name, "input": "hi"}, (3, 0, False)),
        ("/api/chat", ASK, (7, 5, False)),
        ("/api/chat", ASK | {"stream": False}, (7, 5, False)),
        ("/api/generate", {"model": CHAT.name, "prompt": "hi"}, (7, 5, False)),
        ("/api/embed", {"model": EMBED.name, "input": "hi"}, (3, 0, False)),
    ],
)
async def test_an_answer_is_charged_as_the_engine_counts_it(
    door: Door, path: str, body: dict[str, object], expected: tuple[int, int, bool]
) -> None:
    answer = await ask(door, post(path, body, BOOT))

    assert answer.status == 200
    use = await last_use(door)
    assert tokens_of(use) == expected
    assert (use.token, use.worker) == ("MUSTER_TOKEN", "node-a/llama")
    assert use.energy_mwh is not None
    assert use.energy_mwh == pytest.approx(use.worker_ms, abs=2)  # 3600 W are 1 Wh a second


async def test_a_stream_that_tells_no_usage_is_counted_and_said_to_be(door: Door) -> None:
    await ask(door, post("/v1/chat/completions", ASK | {"stream": True}, BOOT))

    prompt, completion, estimated = tokens_of(await last_use(door))
    assert prompt > 10
    assert len(TOKENS) <= completion <= len(TOKENS) + 2  # the role and the end come in events of their own
    assert estimated


async def test_ollama_s_own_stream_is_charged_by_its_last_line(access: Access) -> None:
    async def counting(asked: Asked) -> None:
        asked.head(content_type="application/x-ndjson")
        asked.line({"model": "m", "message": {"content": "hi"}, "done": False})
        asked.line({"model": "m", "done": True, "context": list(range(5000)), "prompt_eval_count": 9, "eval_count": 4})
        asked.last_chunk()

    async with (
        Engine(counting) as engine,
        opened(FleetTwin(worker(engine.url, dialects=BOTH)), account_of=access.account) as door,
    ):
        await ask(door, post("/api/chat", ASK))
        use = await last_use(door)

    assert tokens_of(use) == (9, 4, False)
    assert use.energy_mwh is None


async def test_who_leaves_pays_for_what_was_produced(engine: Engine, door: Door) -> None:
    engine.behaviour = stall_after(3)
    client = client_of(door, "boot")
    stream = await client.chat.completions.create(model=CHAT.name, messages=SAID, stream=True)
    for _ in range(3):
        await anext(stream)
    await stream.close()
    await client.close()

    prompt, completion, estimated = tokens_of(await last_use(door))
    assert prompt > 10
    assert 3 <= completion <= 5
    assert estimated


async def test_an_error_of_the_engine_costs_nothing(engine: Engine, door: Door) -> None:
    async def no(asked: Asked) -> None:
        asked.reply({"error": {"message": "too long", "code": 400}}, 400)

    engine.behaviour = no
    assert (await ask(door, post("/v1/chat/completions", ASK, BOOT))).status == 400
    await eventually(lambda: bool(door.finished))
    assert door.finished[-1].use is None


async def test_without_any_token_it_is_nobody_s(engine: Engine) -> None:
    async with opened(FleetTwin(worker(engine.url))) as door:
        await ask(door, post("/v1/chat/completions", ASK))
        assert (await last_use(door)).token == "anonymous"


# --- who may have what ------------------------------------------------------------------------------------------------


async def test_a_token_sees_and_asks_its_models_only(door: Door, access: Access) -> None:
    client = client_of(door, await token_with(access, models=("mini*",)))

    assert [model.id async for model in client.models.list()] == [EMBED.name]
    assert (await client.embeddings.create(model=EMBED.name, input="hi")).usage.prompt_tokens == 3
    with pytest.raises(openai.NotFoundError, match="may not use it"):
        await client.chat.completions.create(model=CHAT.name, messages=SAID)
    with pytest.raises(openai.NotFoundError, match="not found"):
        await client.models.retrieve(CHAT.name)
    await client.close()


async def test_to_ollama_s_clients_what_is_not_allowed_is_not_there(door: Door, access: Access) -> None:
    token = await token_with(access, models=("mini*",))
    shown = f"authorization: Bearer {token}"

    tags = await ask(door, get("/api/tags", shown))
    assert [model["name"] for model in tags.json["models"]] == [EMBED.name]
    for path, said in (
        ("/api/chat", f'model "{CHAT.name}" not found, try pulling it first'),
        ("/api/show", f"model '{CHAT.name}' not found"),
    ):
        answer = await ask(door, post(path, ASK, shown))
        assert (answer.status, answer.json["error"]) == (404, said)


async def test_no_list_and_no_refusal_names_what_a_token_may_not_use(engine: Engine, access: Access) -> None:
    token = await token_with(access, models=("mini*", "nope"))
    shown = f"authorization: Bearer {token}"
    fleet = FleetTwin(worker(engine.url, "a", CHAT), worker(engine.url, "b", EMBED), worker(engine.url, "c"))
    async with opened(fleet, authenticate=access.refusal, who=access.who, account_of=access.account) as door:
        for path, key, name in (
            ("/v1/models", "data", "id"),
            ("/api/tags", "models", "name"),
            ("/api/ps", "models", "name"),
        ):
            answer = await ask(door, get(path, shown))
            assert [model[name] for model in answer.json[key]] == ([] if path == "/api/ps" else [EMBED.name])
            assert CHAT.name.encode() not in answer.body
        tags = await ask(door, get("/api/tags", shown))
        assert tags.headers["x-muster-worker"] == "b/llama, c/llama"
        listed = await ask(door, get("/v1/models", shown, "anthropic-version: 1"))
        assert [model["id"] for model in listed.json["data"]] == [EMBED.name]
        for path in (f"/v1/models/{CHAT.name}", "/v1/models/nope"):
            assert (await ask(door, get(path, shown))).status == 404
        for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/rerank", "/api/chat", "/api/show"):
            for model in (CHAT.name, "nope"):
                answer = await ask(door, post(path, ASK | {"model": model}, shown))
                assert answer.status == 404, path
                assert CHAT.name.encode() not in answer.body.replace(model.encode(), b""), path
    assert engine.requests == []


async def test_limits_of_a_minute_are_told_before_and_after_they_are_reached(door: Door, access: Access) -> None:
    client = client_of(door, await token_with(access, requests_per_min=2, tokens_per_min=1000))
    answered = await client.chat.completions.with_raw_response.create(model=CHAT.name, messages=SAID)
    assert answered.headers["x-ratelimit-limit-requests"] == "2"
    assert answered.headers["x-ratelimit-remaining-requests"] == "1"
    assert answered.headers["x-ratelimit-limit-tokens"] == "1000"
    await client.chat.completions.create(model=CHAT.name, messages=SAID)

    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model=CHAT.name, messages=SAID)
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 31
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    await client.close()


async def test_a_used_up_budget_is_told_before_the_body_is_read(door: Door, access: Access) -> None:
    text = await token_with(access, tokens_per_day=10)
    client = client_of(door, text)
    await client.chat.completions.create(model=CHAT.name, messages=SAID)
    access.account(text.encode()).take(await last_use(door), SystemClock().now_ms(), SystemClock().monotonic_s())

    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model=CHAT.name, messages=SAID)
    body = caught.value.body
    assert isinstance(body, dict)
    assert (body["type"], body["code"]) == ("insufficient_quota", "insufficient_quota")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert int(caught.value.response.headers["retry-after"]) >= 1
    await client.close()

    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\nauthorization: Bearer {text}"
    assert (await ask(door, f"{head}\r\n\r\n".encode())).status == 429


async def test_callers_who_come_together_overdraw_by_no_more_than_what_is_in_flight(door: Door, access: Access) -> None:
    client = client_of(door, await token_with(access, requests_per_min=5))
    tried = await asyncio.gather(
        *(client.chat.completions.create(model=CHAT.name, messages=SAID) for _ in range(20)),
        return_exceptions=True,
    )
    await client.close()

    assert sum(isinstance(one, openai.RateLimitError) for one in tried) == 15


async def test_ollama_engines_are_counted_too(access: Access) -> None:
    async with (
        Engine(ollama) as engine,
        opened(FleetTwin(worker(engine.url, dialects=BOTH)), account_of=access.account) as door,
    ):
        await ask(door, post("/api/chat", ASK))
        use = await last_use(door)

    assert use.completion_tokens == len(TOKENS) + 1
    assert use.estimated
