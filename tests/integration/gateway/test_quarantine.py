"""Workers that fail only where it counts: put aside, tried by ourselves, and let back step by step."""

import asyncio

import pytest

from muster.domain.service import Dialect
from muster.gateway import GatewayLimits
from muster.gateway.probe import question
from muster.gateway.trust.quarantine import Change
from muster.placement.wish import Wish
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import (
    Asked,
    Behaviour,
    Engine,
    cut_after,
    hang,
    llama,
    ollama,
    refuse,
    reset,
    stall_after,
)
from tests.integration.gateway.fleet import BOTH, EMBED, FleetTwin, worker
from tests.integration.gateway.wire import Answer, chat, post
from tests.waiting import eventually

LIMITS = GatewayLimits(
    first_byte_timeout_s=0.1, idle_timeout_s=0.1, quarantine_s=0.1, quarantine_max_s=0.4, probe_timeout_s=0.2
)
LONG = GatewayLimits(first_byte_timeout_s=0.1, idle_timeout_s=0.1, quarantine_s=3600.0, quarantine_max_s=3600.0)
PATHS = pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
FAULTS = pytest.mark.parametrize(
    "fault",
    [refuse, reset, hang, cut_after(2), stall_after(2)],
    ids=["503", "reset", "hang", "cut", "stall"],
)


async def asked(door: Door, path: str = "/v1/chat/completions", content: dict[str, object] | None = None) -> Answer:
    async with await door.wire() as wire:
        wire.send(post(path, content or chat(stream=True)))
        return await wire.answer()


def is_probe(request: Asked) -> bool:
    return b"Count to ten." in request.body


def quarantined(door: Door) -> list[str]:
    return [case.worker for case in door.gateway.view().quarantined]


async def ask_until(door: Door, expected: list[str], path: str = "/v1/chat/completions") -> None:
    """Ask again and again until just these are quarantined."""
    for _ in range(60):
        if quarantined(door) == expected:
            return
        await asked(door, path)
    raise AssertionError(f"quarantined: {door.gateway.view().quarantined}")


@PATHS
@FAULTS
async def test_who_fails_again_and_again_gets_no_requests_any_more(path: str, fault: Behaviour):
    changes: list[Change] = []
    async with Engine(fault) as bad, Engine(ollama) as good:
        fleet = FleetTwin(worker(bad.url, "a", dialects=BOTH), worker(good.url, "b", dialects=BOTH))
        async with opened(fleet, limits=LONG, on_conduct=changes.append) as door:
            await ask_until(door, ["a/llama"], path)
            before = len(bad.requests)
            assert before <= 3
            for _ in range(6):
                assert (await asked(door, path)).headers["x-muster-worker"] == "b/llama"
            assert len(bad.requests) == before
            assert [(change.worker, change.model) for change in changes] == [("a/llama", "smollm2-135m")]

            decision = door.gateway.decide(Wish(model="smollm2-135m"))
            assert decision.ranked == ("b/llama",)
            assert [entry.filter for entry in decision.rejections] == ["quarantined"]
            written = {family.family.name: list(family.samples) for family in door.gateway.metrics()}
            assert len(written["muster_gateway_quarantined"]) == 1


async def test_the_only_worker_of_a_model_is_asked_even_so_and_its_error_is_told():
    async with Engine(reset) as bad, Engine() as other:
        fleet = FleetTwin(worker(bad.url, "a"), worker(other.url, "b", EMBED))
        async with opened(fleet, limits=LONG) as door:
            for _ in range(8):
                answer = await asked(door)
                assert answer.status == 502
                assert "a/llama" in answer.json["error"]["message"]
            assert quarantined(door) == ["a/llama"]
            assert len(bad.requests) == 8


async def test_a_worker_that_is_gone_is_out_for_all_models():
    async with Engine() as gone, Engine() as good:
        fleet = FleetTwin(worker(gone.url, "a"), worker(good.url, "b"))
        await gone.stop()
        async with opened(fleet, limits=LONG) as door:
            for _ in range(8):
                assert (await asked(door)).status == 200
            (case,) = door.gateway.view().quarantined
            assert (case.worker, case.model, case.reason) == ("a/llama", None, "connect")


@FAULTS
async def test_a_worker_that_does_well_again_comes_back_by_itself(fault: Behaviour):
    changes: list[Change] = []
    async with Engine(fault) as bad, Engine(ollama) as good:
        fleet = FleetTwin(worker(bad.url, "a", dialects=BOTH), worker(good.url, "b", dialects=BOTH))
        async with opened(fleet, limits=LIMITS, on_conduct=changes.append) as door:
            await ask_until(door, ["a/llama"])
            probed_from = len(bad.requests)
            await eventually(lambda: door.gateway.view().quarantined[0].times >= 3)
            assert all(is_probe(request) for request in bad.requests[probed_from:]), "no caller is tried on it"

            bad.behaviour = ollama
            await eventually(lambda: door.gateway.view().quarantined[0].standing == "returning")
            await ask_until(door, [])
            assert changes[-1].reason is None
            workers = {(await asked(door)).headers["x-muster-worker"] for _ in range(4)}
            assert workers == {"a/llama", "b/llama"}


async def test_only_one_caller_at_a_time_is_let_to_a_worker_that_comes_back():
    gate = asyncio.Event()

    async def slow(request: Asked) -> None:
        if not is_probe(request):
            await gate.wait()
        await llama(request)

    async with Engine(reset) as bad, Engine() as good:
        fleet = FleetTwin(worker(bad.url, "a"), worker(good.url, "b"))
        limits = GatewayLimits(quarantine_s=0.1, quarantine_max_s=0.1)
        async with opened(fleet, limits=limits) as door:
            await ask_until(door, ["a/llama"])
            bad.behaviour = slow
            await eventually(lambda: door.gateway.view().quarantined[0].standing == "returning")
            before = len(bad.requests)
            async with asyncio.TaskGroup() as callers:
                for _ in range(10):
                    callers.create_task(asked(door))
                await eventually(lambda: len(door.finished) >= 9)
                assert len(bad.requests) - before == 1
                gate.set()


async def test_who_leaves_during_the_trial_makes_room_for_the_next():
    async def slow(request: Asked) -> None:
        await (llama if is_probe(request) else hang)(request)

    async with Engine(reset) as bad, Engine() as good:
        fleet = FleetTwin(worker(bad.url, "a"), worker(good.url, "b"))
        limits = GatewayLimits(quarantine_s=0.1, quarantine_max_s=0.1)
        async with opened(fleet, limits=limits) as door:
            await ask_until(door, ["a/llama"])
            bad.behaviour = slow
            await eventually(lambda: door.gateway.view().quarantined[0].standing == "returning")
            for _ in range(2):  # of two, one goes to the trial
                async with await door.wire() as wire:
                    wire.send(post("/v1/chat/completions", chat(stream=True)))
                    await eventually(lambda: bad.answering == 1 or door.finished[-1].status == 200)
            await eventually(lambda: bad.answering == 0)
            bad.behaviour = llama
            await ask_until(door, [])


async def test_a_model_that_does_not_chat_is_tried_in_its_own_way():
    async with Engine(reset) as engine, opened(FleetTwin(worker(engine.url)), limits=LIMITS) as door:
        for _ in range(3):
            async with await door.wire() as wire:
                wire.send(post("/v1/embeddings", {"model": "minilm", "input": "x"}))
                await wire.answer()
        assert quarantined(door) == ["node-a/llama"]
        engine.behaviour = llama
        await eventually(lambda: door.gateway.view().quarantined[0].standing == "returning")
        assert engine.requests[-1].path == "/v1/embeddings"


def test_a_model_for_something_else_is_tried_by_a_connection():
    candidate = worker("http://a", "a", dialects=BOTH)
    assert question(candidate, "m", ("image",)) == ("", b"")
    ollama_only = worker("http://a", "a", dialects=(Dialect.OLLAMA,))
    assert question(ollama_only, "m", ("completion",))[0] == "/api/chat"
    assert question(ollama_only, "m", ("embedding",))[0] == "/api/embed"


async def test_a_quarantined_worker_that_leaves_the_fleet_is_forgotten():
    async with Engine(reset) as bad, Engine() as good:
        fleet = FleetTwin(worker(bad.url, "a"), worker(good.url, "b"))
        async with opened(fleet, limits=LIMITS) as door:
            await ask_until(door, ["a/llama"])
            fleet.become(worker(good.url, "b"))
            await eventually(lambda: quarantined(door) == [])


async def test_an_engine_that_does_not_heed_how_little_is_asked_has_shown_enough():
    async def endless(request: Asked) -> None:
        request.head(content_type="text/event-stream")
        while True:
            request.event({"choices": [{"delta": {"content": "tick"}}]})
            await request.written()
            await asyncio.sleep(0)

    async with Engine(reset) as bad, Engine() as good:
        fleet = FleetTwin(worker(bad.url, "a"), worker(good.url, "b"))
        async with opened(fleet, limits=LIMITS) as door:
            await ask_until(door, ["a/llama"])
            bad.behaviour = endless
            await eventually(lambda: door.gateway.view().quarantined[0].standing == "returning")
            await eventually(lambda: bad.answering == 0)


async def test_a_wait_is_learned_and_a_stall_ends_long_before_the_setting():
    limits = GatewayLimits(
        first_byte_timeout_s=60.0, idle_timeout_s=60.0, first_byte_floor_s=0.2, idle_floor_s=0.2, patience_samples_min=4
    )
    async with Engine() as engine, opened(FleetTwin(worker(engine.url)), limits=limits) as door:
        for _ in range(4):
            assert (await asked(door)).status == 200
        (waits,) = door.gateway.view().waits
        assert (waits.worker, waits.model, waits.answers, waits.learned) == ("node-a/llama", "smollm2-135m", 4, True)
        engine.behaviour = hang
        hung = await asked(door)
        assert (hung.status, hung.json["error"]["code"]) == (504, "upstream_timeout")
        assert "did not begin to answer within" in hung.json["error"]["message"]
