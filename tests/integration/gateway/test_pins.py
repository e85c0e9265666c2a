"""Callers that say by header where their request has to go."""

from tests.integration.gateway.door import opened
from tests.integration.gateway.engine import Engine
from tests.integration.gateway.fleet import FleetTwin, worker
from tests.integration.gateway.wire import chat, post


async def test_a_pinned_request_goes_there_and_nowhere_else() -> None:
    async with Engine() as one, Engine() as other:
        fleet = FleetTwin(worker(one.url, "a", slots=4), worker(other.url, "b", slots=1))
        async with opened(fleet) as door, await door.wire() as wire:
            for pin in ("X-Muster-Node: b", "X-Muster-Pool: b/llama"):
                wire.send(post("/v1/chat/completions", chat(), pin))
                answer = await wire.answer()
                assert (answer.status, answer.headers["x-muster-worker"]) == (200, "b/llama")
    assert (len(one.requests), len(other.requests)) == (0, 2)
    assert not any(name.startswith("x-muster") for asked in other.requests for name in asked.headers)


async def test_a_pin_that_nobody_fits_is_refused_whoever_else_could(engine: Engine) -> None:
    fleet = FleetTwin(worker(engine.url, "a"), worker(engine.url, "b", draining=True))
    async with opened(fleet) as door, await door.wire() as wire:
        for pin, status, code in (
            ("X-Muster-Pool: nowhere", 404, "POOL_NOT_FOUND"),
            ("X-Muster-Pool: b/llama", 503, "POOL_NOT_READY"),
            ("X-Muster-Labels: zone=a", 503, "no_worker_available"),
            ("X-Muster-Min-Vram-Mb: much", 400, "invalid_input"),
        ):
            wire.send(post("/v1/chat/completions", chat(), pin))
            answer = await wire.answer()
            assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert engine.requests == []
