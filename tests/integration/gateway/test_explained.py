"""Where a request went can be asked afterwards, and why; conversations go where they were."""

import asyncio

from muster.gateway import GatewayLimits, RequestView
from muster.placement.scores import Strategy
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import Asked, Engine, llama, refuse, reset
from tests.integration.gateway.fleet import FleetTwin, worker
from tests.integration.gateway.wire import Answer, chat, post
from tests.waiting import eventually

OPENAI = "/v1/chat/completions"


async def asked(door: Door, *headers: str) -> Answer:
    async with await door.wire() as wire:
        wire.send(post(OPENAI, chat(), *headers))
        return await wire.answer()


def explained(door: Door, answer: Answer) -> RequestView:
    view = door.gateway.explain(answer.headers["x-correlation-id"])
    assert view is not None
    return view


async def test_a_request_is_explained_with_those_who_could_and_could_not() -> None:
    async with Engine() as engine:
        fleet = FleetTwin(
            worker(engine.url, "a", slots=4), worker(engine.url, "b", slots=2), worker("http://x", "c", draining=True)
        )
        async with opened(fleet, strategy=Strategy.BALANCED) as door:
            answer = await asked(door, "x-correlation-id: mine")
            view = explained(door, answer)
            recent = door.gateway.view().requests

    (attempt,) = view.attempts
    assert (view.correlation_id, view.status, view.error, view.waits) == ("mine", 200, None, [])
    assert (view.path, view.model, view.strategy) == (OPENAI, "smollm2-135m", "balanced")
    assert attempt.worker == answer.headers["x-muster-worker"]
    assert attempt.why == "the answer was to be expected soonest there of 2 workers"
    assert [(one.worker, one.in_flight, one.slots) for one in attempt.considered] == [
        ("a/llama", 0, 4),
        ("b/llama", 0, 2),
    ]
    assert [(one.worker, one.reason) for one in attempt.passed_over] == [("c/llama", "is draining")]
    assert (attempt.could_serve, attempt.could_not, attempt.failure) == (2, 1, None)
    assert view.duration_s == attempt.ended_s is not None
    assert [(one.correlation_id, one.worker, one.status) for one in recent] == [("mine", attempt.worker, 200)]


async def test_each_attempt_is_told_with_how_it_failed() -> None:
    async with Engine(reset) as first, Engine(refuse) as second, Engine() as third:
        fleet = FleetTwin(worker(first.url, "a"), worker(second.url, "b"), worker(third.url, "c"))
        async with opened(fleet, strategy=Strategy.BALANCED) as door:
            view = explained(door, await asked(door))

    told = [(attempt.worker, attempt.failure) for attempt in view.attempts]
    assert told == [("a/llama", "lost"), ("b/llama", "status_503"), ("c/llama", None)]
    assert view.attempts[-1].why == "no other worker could serve it"


async def test_a_wait_and_a_refusal_are_told() -> None:
    go_on = asyncio.Event()

    async def slow(request: Asked) -> None:
        await go_on.wait()
        await llama(request)

    async with Engine(slow) as engine, opened(FleetTwin(worker(engine.url, slots=1))) as door:
        first = asyncio.create_task(asked(door))
        await eventually(lambda: len(engine.requests) == 1)
        second = asyncio.create_task(asked(door, "x-correlation-id: second"))
        await eventually(lambda: len(door.gateway.view().lines) == 1)
        waiting = door.gateway.explain("second")
        assert waiting is not None
        assert (waiting.status, waiting.attempts) == (None, [])
        go_on.set()
        await first
        view = explained(door, await second)
        assert (await asked(door, "x-correlation-id: bad", "x-muster-node: nowhere")).status == 503
        refused = door.gateway.explain("bad")

    (wait,) = view.waits
    assert wait.what == "a free slot"
    assert wait.ended_s == view.attempts[0].begun_s
    assert refused is not None
    assert (refused.status, refused.error, refused.attempts) == (503, "no_worker_available", [])


async def test_only_the_newest_are_remembered() -> None:
    async with Engine() as engine, opened(FleetTwin(worker(engine.url)), limits=GatewayLimits(decisions_max=2)) as door:
        for number in range(3):
            await asked(door, f"x-correlation-id: r{number}")
        assert [door.gateway.explain(f"r{number}") is not None for number in range(3)] == [False, True, True]
        assert [one.correlation_id for one in door.gateway.view().requests] == ["r2", "r1"]


async def test_a_conversation_stays_where_it_was() -> None:
    async with Engine() as engine:
        fleet = FleetTwin(*(worker(engine.url, node, slots=4) for node in "abcd"))
        async with opened(fleet, strategy=Strategy.BALANCED) as door:
            by_session = {
                session: [await asked(door, f"x-session-id: {session}") for _ in range(3)]
                for session in map(str, range(12))
            }
            view = explained(door, by_session["0"][-1])

    homes = {name: {answer.headers["x-muster-worker"] for answer in answers} for name, answers in by_session.items()}
    assert all(len(found) == 1 for found in homes.values())
    assert len(set.union(*homes.values())) > 1
    assert view.attempts[0].why == "it has served this conversation, and is not loaded more than the others"


async def test_what_a_worker_was_seen_to_do_moves_those_who_come_after() -> None:
    async with Engine() as engine:
        fleet = FleetTwin(worker(engine.url, "a", slots=4), worker(engine.url, "b", slots=4))
        async with opened(fleet, strategy=Strategy.BALANCED) as door:
            router = door.gateway._router
            router.learn("a/llama", "smollm2-135m", 100, 4.0)
            router.learn("b/llama", "smollm2-135m:latest", 100, 1.0)
            view = explained(door, await asked(door))

    assert [(one.worker, one.slowness) for one in view.attempts[0].considered] == [("b/llama", 0.625), ("a/llama", 2.5)]
