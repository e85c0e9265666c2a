"""Two workers, one of which fails where it counts while its health check is fine; in both dialects.

A 503, a reset and a hang before the answer begins are hidden. A cut and a stall within it end with an error in the
caller's dialect, within the deadline, where nobody else may go on with it (test_continued.py has those). The worker
is then kept from requests. Who leaves frees the engine and the slot.
"""

import asyncio

import pytest

from muster.domain.service import Dialect
from muster.gateway import GatewayLimits
from tests.conformance.gateway_faults.said import OLLAMA_CHAT, OPENAI_CHAT, question, said
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import (
    TOKENS,
    Behaviour,
    Engine,
    cut_after,
    hang,
    ollama,
    refuse,
    reset,
    stall_after,
)
from tests.integration.gateway.fleet import BOTH, OPENAI_ONLY, FleetTwin, worker
from tests.integration.gateway.wire import Answer
from tests.waiting import eventually

LIMITS = GatewayLimits(
    first_byte_timeout_s=0.3, idle_timeout_s=0.3, quarantine_s=3600.0, quarantine_max_s=3600.0, attempts_max=3
)
TEXT = "".join(TOKENS)
PATHS = pytest.mark.parametrize("path", [OPENAI_CHAT, OLLAMA_CHAT])
ENGINES = pytest.mark.parametrize("dialects", [OPENAI_ONLY, BOTH], ids=["engine of OpenAI's", "engine of both"])


async def asked(door: Door, path: str) -> Answer:
    async with await door.wire() as wire:
        wire.send(question(path, "x-muster-continue: no"))
        return await wire.answer()


def two(bad: Engine, good: Engine, dialects: tuple[Dialect, ...]) -> FleetTwin:
    return FleetTwin(worker(bad.url, "a", dialects=dialects), worker(good.url, "b", dialects=dialects))


@PATHS
@ENGINES
@pytest.mark.parametrize("fault", [refuse, reset, hang], ids=["503", "reset", "hang"])
async def test_what_fails_before_the_first_byte_is_hidden_and_put_aside(
    path: str, dialects: tuple[Dialect, ...], fault: Behaviour
):
    async with Engine(fault) as bad, Engine(ollama) as good:
        async with opened(two(bad, good, dialects), limits=LIMITS) as door:
            for _ in range(12):
                answer = await asked(door, path)
                heard = said(answer)
                assert (heard.text, heard.done, heard.error) == (TEXT, True, None)
                assert answer.headers["x-muster-worker"] == "b/llama"
            assert [case.worker for case in door.gateway.view().quarantined] == ["a/llama"]
            assert len(bad.requests) <= 3
            assert door.reserved == {}
        await eventually(lambda: bad.answering == 0)


@PATHS
@ENGINES
@pytest.mark.parametrize("fault", [cut_after(3), stall_after(3)], ids=["cut", "stall"])
async def test_what_fails_within_an_answer_is_told_in_the_callers_dialect_and_put_aside(
    path: str, dialects: tuple[Dialect, ...], fault: Behaviour
):
    async with Engine(fault) as bad, Engine(ollama) as good:
        async with opened(two(bad, good, dialects), limits=LIMITS) as door:
            broken = 0
            for _ in range(12):
                heard = said(await asked(door, path))
                if heard.error is None:
                    assert (heard.text, heard.done) == (TEXT, True)
                else:
                    broken += 1
                    assert (heard.text, heard.done) == ("".join(TOKENS[:3]), False)
                    assert "a/llama" in heard.error
            assert 0 < broken <= 3
            assert [case.worker for case in door.gateway.view().quarantined] == ["a/llama"]
            assert door.reserved == {}
        await eventually(lambda: bad.answering == 0)


@PATHS
@ENGINES
@pytest.mark.parametrize("fault", [hang, stall_after(3)], ids=["before the answer", "within it"])
async def test_who_leaves_frees_the_engine_and_the_slot(path: str, dialects: tuple[Dialect, ...], fault: Behaviour):
    """How fast is measured by the benchmark of the gateway; here it is much less than any deadline."""
    patient = GatewayLimits(first_byte_timeout_s=600.0, idle_timeout_s=600.0)
    async with (
        Engine(fault) as engine,
        opened(FleetTwin(worker(engine.url, dialects=dialects)), limits=patient) as door,
    ):
        wires = await asyncio.gather(*[door.wire() for _ in range(20)])
        for wire in wires:
            wire.send(question(path))
        await eventually(lambda: engine.answering == 20)
        for wire in wires:
            wire.abort()
        await eventually(lambda: engine.answering == 0)
        await eventually(lambda: door.reserved == {} and door.gateway.in_flight == 0)
        assert door.gateway.view().quarantined == [], "that callers leave says nothing about the worker"
