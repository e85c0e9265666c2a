"""A stream that breaks off after its first byte is gone on with by another worker, and the caller sees one answer."""

import json
from itertools import accumulate
from typing import Any

import pytest

from muster.domain.service import Dialect
from muster.gateway import GatewayLimits
from tests.conformance.gateway_faults.said import OLLAMA_CHAT, OPENAI_CHAT, OPENAI_COMPLETION, said
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import Asked, Engine
from tests.integration.gateway.fleet import BOTH, OPENAI_ONLY, FleetTwin, worker
from tests.integration.gateway.wire import Answer, chat, post
from tests.waiting import eventually

TOKENS = ("Once", " upon", " a", " ti", "me", ".")
TEXT = "".join(TOKENS)
LIMITS = GatewayLimits(
    first_byte_timeout_s=0.3, idle_timeout_s=0.3, quarantine_s=3600.0, quarantine_max_s=3600.0, attempts_max=3
)
WAYS = pytest.mark.parametrize(
    ("path", "dialects"),
    [(OPENAI_CHAT, OPENAI_ONLY), (OPENAI_COMPLETION, OPENAI_ONLY), (OLLAMA_CHAT, BOTH), (OLLAMA_CHAT, OPENAI_ONLY)],
    ids=["chat", "completion", "ollama", "translated"],
)


def told_so_far(asked: Asked) -> str:
    """Return what the engine is to go on after."""
    if asked.path == OPENAI_COMPLETION:
        return str(asked.json["prompt"]).removeprefix("Tell.")
    last = asked.json["messages"][-1]
    return str(last["content"]) if last["role"] == "assistant" else ""


def lines_of(asked: Asked, tokens: tuple[str, ...]) -> list[bytes]:
    """Answer with the tokens that are still to come, as a true engine would."""
    begun = told_so_far(asked)
    assert "".join(tokens).startswith(begun)
    places = accumulate((len(token) for token in tokens), initial=0)
    rest = [token for token, place in zip(tokens, places, strict=False) if place >= len(begun)]
    if asked.path == OLLAMA_CHAT:
        pieces = [{"model": "m", "message": {"role": "assistant", "content": token}, "done": False} for token in rest]
        end = {"model": "m", "message": {"content": ""}, "done": True, "eval_count": len(rest), "prompt_eval_count": 9}
        return [json.dumps(piece).encode() + b"\n" for piece in (*pieces, end)]
    name = f"id-{len(begun)}"
    plain = asked.path == OPENAI_COMPLETION
    said_by: list[dict[str, Any]] = [{"text": token} if plain else {"delta": {"content": token}} for token in rest]
    if not plain:
        said_by.insert(0, {"delta": {"role": "assistant", "content": None}})
    said_by.append({"text": "", "finish_reason": "stop"} if plain else {"delta": {}, "finish_reason": "stop"})
    events: list[dict[str, Any]] = [{"id": name, "created": len(begun), "model": "m", "choices": [c]} for c in said_by]
    prompt = 7 + len(tokens) - len(rest)
    counts = {"prompt_tokens": prompt, "completion_tokens": len(rest), "total_tokens": prompt + len(rest)}
    events.append({"id": name, "created": len(begun), "model": "m", "choices": [], "usage": counts})
    return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events] + [b"data: [DONE]\n\n"]


class Storyteller:
    """Tells the rest of the story; breaks off after `after` bytes of it, if so told."""

    def __init__(self, after: int | None = None, *, how: str = "cut", tokens: tuple[str, ...] = TOKENS) -> None:
        self.after = after
        self.how = how
        self.tokens = tokens
        self.length = 0

    async def __call__(self, asked: Asked) -> None:
        data = b"".join(lines_of(asked, self.tokens))
        self.length = len(data)
        asked.head(content_type="application/x-ndjson" if asked.path == OLLAMA_CHAT else "text/event-stream")
        part = data[: self.after]
        if part:
            asked.chunk(part)
        if self.after is None or self.how == "clean":
            asked.last_chunk()
        elif self.how == "cut":
            await asked.written()
            asked.close()


def question(path: str, *headers: str, **more: object) -> bytes:
    return post(path, chat(stream=True) | {"prompt": "Tell."} | more, *headers)


async def asked(door: Door, request: bytes) -> Answer:
    async with await door.wire() as wire:
        wire.send(request)
        return await wire.answer()


def two(one: Engine, other: Engine, dialects: tuple[Dialect, ...] = OPENAI_ONLY) -> FleetTwin:
    return FleetTwin(worker(one.url, "a", dialects=dialects), worker(other.url, "b", dialects=dialects))


def events(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: {")]


@WAYS
@pytest.mark.parametrize("how", ["cut", "clean"])
async def test_wherever_it_breaks_off_the_answer_is_whole(path: str, dialects: tuple[Dialect, ...], how: str):
    broken, well = Storyteller(how=how), Storyteller()
    async with Engine(broken) as bad, Engine(well) as good, opened(two(bad, good, dialects), limits=LIMITS) as door:
        await asked(door, question(path))
        length = max(broken.length, well.length)
        continued = 0
        for cut in range(0, length + 1, 3):
            broken.after = cut
            door.gateway._conduct.quarantine.cases.clear()
            answer = await asked(door, question(path))
            heard = said(answer)
            if heard.error is None:
                assert (heard.text, heard.done) == (TEXT, True), cut
            else:  # what has said its reason to end has no rest to be told
                assert heard.text == TEXT, cut
            continued += b"continued" in answer.body
        assert how == "clean" or continued > 10, "what ends cleanly mostly comes at once, and is asked for anew"
        assert door.reserved == {}


@WAYS
@pytest.mark.parametrize("after", [20_000, 60_001])
async def test_a_long_story_is_whole_as_well(path: str, dialects: tuple[Dialect, ...], after: int):
    words = tuple(f" wörd{number}" for number in range(1000))
    bad, good = Storyteller(after, tokens=words), Storyteller(tokens=words)
    async with Engine(bad) as one, Engine(good) as other, opened(two(one, other, dialects), limits=LIMITS) as door:
        answers = [await asked(door, question(path)) for _ in range(2)]
    assert [said(answer).text == "".join(words) and said(answer).error is None for answer in answers] == [True, True]
    assert any(b"continued" in answer.body for answer in answers)


@WAYS
async def test_a_stream_that_falls_silent_is_gone_on_with_too(path: str, dialects: tuple[Dialect, ...]):
    async with Engine(Storyteller(220, how="stall")) as bad, Engine(Storyteller()) as good:
        async with opened(two(bad, good, dialects), limits=LIMITS) as door:
            for _ in range(2):
                heard = said(await asked(door, question(path)))
                assert (heard.text, heard.done, heard.error) == (TEXT, True, None)
        await eventually(lambda: bad.answering == 0)


async def test_the_pieces_of_both_are_those_of_one_answer_and_marked():
    async with Engine(Storyteller(420)) as bad, Engine(Storyteller()) as good:
        async with opened(two(bad, good), limits=LIMITS) as door:
            answers = [await asked(door, question(OPENAI_CHAT, max_tokens=50)) for _ in range(2)]
        answer = next(each for each in answers if b"continued" in each.body)
        assert all(each.headers["x-muster-continuable"] == "yes" for each in answers)
        assert answer.headers["x-muster-worker"] == "a/llama"
        assert b"\n: continued by b/llama\n\n" in answer.body
        assert {(event["id"], event["created"]) for event in events(answer)} == {("id-0", 0)}
        roles = [
            event for event in events(answer) if event["choices"] and "role" in event["choices"][0].get("delta", {})
        ]
        assert len(roles) == 1
        assert events(answer)[-1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13}
        begun = told_so_far(good.requests[-1]) or told_so_far(good.requests[-2])
        rest = next(request for request in good.requests if told_so_far(request))
        assert begun
        assert rest.json["max_tokens"] == 50 - len([t for t in TOKENS if t in begun])
        assert good.requests[-1].json["messages"][0] == {"role": "user", "content": "Tell."}


async def test_it_may_break_off_again_and_again():
    async with Engine(Storyteller(420)) as one, Engine(Storyteller(300)) as two_, Engine(Storyteller()) as three:
        fleet = FleetTwin(worker(one.url, "a"), worker(two_.url, "b"), worker(three.url, "c"))
        async with opened(fleet, limits=LIMITS) as door:
            for _ in range(3):
                heard = said(await asked(door, question(OPENAI_CHAT)))
                assert (heard.text, heard.done, heard.error) == (TEXT, True, None)


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function"}]},
        {"logprobs": True},
        {"n": 2},
        {"response_format": {"type": "json_object"}},
        {"grammar": "root ::= x"},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
        {"messages": [{"role": "user", "content": "x" * 300_000}]},
    ],
    ids=lambda more: next(iter(more)),
)
async def test_what_cannot_be_replayed_exactly_ends_with_an_error(more: dict[str, object]):
    async def cut(asked: Asked) -> None:
        asked.head(content_type="text/event-stream")
        asked.event({"choices": [{"delta": {"content": "Once"}}]})
        await asked.written()
        asked.close()

    async with Engine(cut) as bad, Engine(cut) as other:
        async with opened(two(bad, other), limits=LIMITS) as door:
            answer = await asked(door, question(OPENAI_CHAT, **more))
        assert "x-muster-continuable" not in answer.headers
        assert said(answer).error is not None
        assert len(bad.requests) + len(other.requests) == 1


async def test_a_caller_may_forbid_it():
    async with Engine(Storyteller(420)) as bad, Engine(Storyteller(420)) as other:
        async with opened(two(bad, other), limits=LIMITS) as door:
            answer = await asked(door, question(OPENAI_CHAT, "x-muster-continue: no"))
        assert "x-muster-continuable" not in answer.headers
        assert said(answer).error is not None
        assert len(bad.requests) + len(other.requests) == 1


async def test_without_another_worker_the_error_is_told():
    async with Engine(Storyteller(420)) as bad, opened(FleetTwin(worker(bad.url)), limits=LIMITS) as door:
        heard = said(await asked(door, question(OPENAI_CHAT)))
        assert heard.error is not None
        assert TEXT.startswith(heard.text)
        assert heard.text
