"""Engines of so many slots: who comes when all are taken waits in line, is told so, and is let in by turns."""

import asyncio
import json
from functools import partial
from typing import Any

import pytest

from muster.access.book import Caller
from muster.access.roles import GRANTS, Role
from muster.domain.model import Model
from muster.errors import NoWorker
from muster.gateway import GatewayLimits
from muster.placement.scores import Strategy
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import Asked, Engine, llama, reset
from tests.integration.gateway.fleet import FleetTwin, worker
from tests.integration.gateway.wire import Answer, Wire, chat, post
from tests.waiting import eventually

OPENAI = "/v1/chat/completions"
OLLAMA = "/api/chat"
SPEAKS_SOON = GatewayLimits(wake_keepalive_s=0.02)


class Slots:
    """An engine's behaviour: it answers each request when the test says so, and knows how many it had at once."""

    def __init__(self) -> None:
        self.open: list[tuple[str, asyncio.Event]] = []
        self.order: list[str] = []
        self.most = 0

    async def __call__(self, asked: Asked) -> None:
        done = asyncio.Event()
        name = asked.json["messages"][0]["content"]
        self.order.append(name)
        self.open.append((name, done))
        self.most = max(self.most, len(self.open))
        try:
            await done.wait()
        finally:
            self.open.remove((name, done))
        await llama(asked)

    def finish(self) -> None:
        self.open[0][1].set()


def said(text: str, **more: Any) -> dict[str, object]:
    return chat(**more) | {"messages": [{"role": "user", "content": text}]}


def waiting(door: Door) -> int:
    return sum(line.waiting for line in door.gateway.view().lines)


async def ask(door: Door, text: str, *headers: str, path: str = OPENAI, **more: Any) -> Wire:
    wire = await door.wire()
    wire.send(post(path, said(text, **more), *headers))
    return wire


async def finish_all(slots: Slots, count: int) -> None:
    for done in range(1, count + 1):
        await eventually(lambda: len(slots.open) > 0)
        slots.finish()
        await eventually(partial(_answered, slots, done))


def _answered(slots: Slots, count: int) -> bool:
    return len(slots.order) - len(slots.open) == count


def _in_all(slots: Slots, door: Door, count: int) -> bool:
    return len(slots.open) + waiting(door) == count


async def test_an_engine_gets_as_many_as_it_has_slots_and_the_others_wait_in_turn() -> None:
    slots = Slots()
    async with Engine(slots) as engine, opened(FleetTwin(worker(engine.url, slots=2))) as door:
        wires = []
        for number in range(5):
            wires.append(await ask(door, str(number)))
            await eventually(partial(_in_all, slots, door, number + 1))
        assert (len(slots.open), waiting(door)) == (2, 3)
        await finish_all(slots, 5)
        answers = [await wire.answer() for wire in wires]

    assert [answer.status for answer in answers] == [200] * 5
    assert (slots.order, slots.most) == (["0", "1", "2", "3", "4"], 2)
    assert door.reserved == {}
    assert door.gateway.view().lines == []


@pytest.mark.parametrize(("path", "word"), [(OPENAI, b": waiting place 1\n\n"), (OLLAMA, b" ")])
async def test_who_streams_hears_its_place_while_it_waits(path: str, word: bytes) -> None:
    slots = Slots()
    async with Engine(slots) as engine, opened(FleetTwin(worker(engine.url, slots=1)), limits=SPEAKS_SOON) as door:
        first = await ask(door, "first")
        await eventually(lambda: len(slots.open) == 1)
        second = await ask(door, "second", path=path, stream=True)
        status, headers = await second.head()
        heard = await second.chunk()
        slots.finish()
        await eventually(lambda: slots.order == ["first", "second"])
        slots.finish()
        rest = await second._body(headers)

    assert (status, heard) == (200, word)
    assert b"[DONE]" in rest or b'"done":true' in rest
    first.abort()


async def test_who_waits_is_told_how_long_once_answers_were_seen() -> None:
    slots = Slots()
    async with (
        Engine(slots) as engine,
        opened(FleetTwin(worker(engine.url, slots=1)), limits=SPEAKS_SOON) as door,
        await door.wire() as seen,
    ):
        seen.send(post(OPENAI, said("seen")))
        await finish_all(slots, 1)
        await seen.answer()
        await ask(door, "first")
        await eventually(lambda: len(slots.open) == 1)
        waits = await ask(door, "second", stream=True)
        await waits.head()
        assert await waits.chunk() == b": waiting place 1, about 1 s\n\n"
        (line,) = door.gateway.view().lines
        assert (line.model, line.waiting) == ("smollm2-135m", 1)
        assert [(caller.name, caller.requests) for caller in line.callers] == [("anybody", 1)]


async def test_what_matters_more_goes_first_and_callers_take_turns() -> None:
    callers = {
        name: Caller(name=name, role=Role.CLIENT, rights=GRANTS[Role.CLIENT], token_id=name) for name in ("ann", "bob")
    }
    slots = Slots()
    async with (
        Engine(slots) as engine,
        opened(FleetTwin(worker(engine.url, slots=1)), who=lambda shown: callers[(shown or b"ann").decode()]) as door,
    ):
        wires = [await ask(door, "runs")]
        await eventually(lambda: len(slots.open) == 1)
        for number, (text, who, priority) in enumerate(
            [
                ("ann1", "ann", "interactive"),
                ("ann2", "ann", "100"),  # more than a client may ask for
                ("batch", "ann", "batch"),
                ("bob1", "bob", "interactive"),
            ],
            start=1,
        ):
            wires.append(await ask(door, text, f"authorization: Bearer {who}", f"x-priority: {priority}"))
            await eventually(partial(_in_all, slots, door, 1 + number))
        await finish_all(slots, 5)
        for wire in wires:
            assert (await wire.answer()).status == 200

    assert slots.order == ["runs", "ann1", "bob1", "ann2", "batch"]
    assert all("x-priority" not in asked.headers for asked in engine.requests)


async def test_a_token_has_turns_by_its_weight_and_no_more_than_its_priority() -> None:
    callers = {
        name: Caller(name=name, role=role, rights=GRANTS[role], token_id=name, weight=weight, priority=priority)
        for name, role, weight, priority in (
            ("ann", Role.CLIENT, 1.0, None),
            ("ten", Role.CLIENT, 2.0, None),
            ("low", Role.ADMIN, 1.0, 20),
            ("top", Role.CLIENT, 1.0, 80),
        )
    }
    slots = Slots()
    async with (
        Engine(slots) as engine,
        opened(FleetTwin(worker(engine.url, slots=1)), who=lambda shown: callers[(shown or b"ann").decode()]) as door,
    ):
        wires = [await ask(door, "runs")]
        await eventually(lambda: len(slots.open) == 1)
        for number, (text, *headers) in enumerate(
            [
                ("low", "authorization: Bearer low", "x-priority: 100"),
                ("ann1", "authorization: Bearer ann"),
                ("ann2", "authorization: Bearer ann"),
                ("ten1", "authorization: Bearer ten"),
                ("ten2", "authorization: Bearer ten"),
                ("ten3", "authorization: Bearer ten"),
                ("less", "authorization: Bearer top", "x-priority: 10"),
                ("top", "authorization: Bearer top", "x-correlation-id: top"),
            ],
            start=1,
        ):
            wires.append(await ask(door, text, *headers))
            await eventually(partial(_in_all, slots, door, 1 + number))
        (line,) = door.gateway.view().lines
        await finish_all(slots, 9)
        for wire in wires:
            assert (await wire.answer()).status == 200
        view = door.gateway.explain("top")

    assert slots.order == ["runs", "top", "ten1", "ann1", "ten2", "ten3", "ann2", "low", "less"]
    assert {caller.name: caller.weight for caller in line.callers} == {"ann": 1, "ten": 2, "low": 1, "top": 1}
    assert view is not None
    assert [(wait.what, wait.priority, wait.weight) for wait in view.waits] == [("a free slot", 80, 1.0)]


@pytest.mark.parametrize("path", [OPENAI, OLLAMA])
async def test_a_full_line_and_a_wait_that_is_over_are_429_in_the_callers_dialect(path: str) -> None:
    slots = Slots()
    limits = GatewayLimits(waiting_max=1, wait_s=0.3, wake_keepalive_s=0.1)
    async with Engine(slots) as engine, opened(FleetTwin(worker(engine.url, slots=1)), limits=limits) as door:
        await ask(door, "runs")
        await eventually(lambda: len(slots.open) == 1)
        waits = await ask(door, "waits", path=path, stream=False)
        await eventually(lambda: waiting(door) == 1)
        refused = await (await ask(door, "refused", path=path, stream=False)).answer()
        over = await waits.answer()

    for answer in (refused, over):
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        error = answer.json["error"]
        assert "try again later" in (error if path == OLLAMA else error["message"])
    assert len(engine.requests) == 1


async def test_a_wait_that_is_over_after_the_head_is_an_error_within_the_stream() -> None:
    slots = Slots()
    limits = GatewayLimits(wait_s=0.2, wake_keepalive_s=0.02)
    async with Engine(slots) as engine, opened(FleetTwin(worker(engine.url, slots=1)), limits=limits) as door:
        await ask(door, "runs")
        await eventually(lambda: len(slots.open) == 1)
        waits = await ask(door, "waits", stream=True)
        _, headers = await waits.head()
        body = await waits._body(headers)

    last = json.loads(body.decode().strip().splitlines()[-1].removeprefix("data: "))
    assert last["error"]["code"] == "queue_full"
    assert b"[DONE]" not in body


async def test_in_a_full_line_the_least_makes_room_for_what_matters_more() -> None:
    slots = Slots()
    limits = GatewayLimits(waiting_max=1)
    async with Engine(slots) as engine, opened(FleetTwin(worker(engine.url, slots=1)), limits=limits) as door:
        runs = await ask(door, "runs")
        await eventually(lambda: len(slots.open) == 1)
        batch = await ask(door, "batch", "x-priority: batch")
        await eventually(lambda: waiting(door) == 1)
        person = await ask(door, "person")
        assert (await batch.answer()).status == 429
        assert waiting(door) == 1
        await finish_all(slots, 2)
        assert [(await wire.answer()).status for wire in (runs, person)] == [200, 200]


async def test_who_leaves_is_out_of_the_line_at_once() -> None:
    slots = Slots()
    async with Engine(slots) as engine, opened(FleetTwin(worker(engine.url, slots=1))) as door:
        runs = await ask(door, "runs")
        await eventually(lambda: len(slots.open) == 1)
        leaves = await ask(door, "leaves")
        await eventually(lambda: waiting(door) == 1)
        stays = await ask(door, "stays")
        await eventually(lambda: waiting(door) == 2)
        leaves.abort()
        await eventually(lambda: waiting(door) == 1)
        await finish_all(slots, 2)
        assert [(await wire.answer()).status for wire in (runs, stays)] == [200, 200]

    assert slots.order == ["runs", "stays"]
    assert door.reserved == {}


async def test_who_is_asked_first_and_leaves_gives_the_slot_to_who_waits() -> None:
    slots = Slots()
    async with Engine(slots) as engine, opened(FleetTwin(worker(engine.url, slots=1))) as door:
        runs = await ask(door, "runs")
        await eventually(lambda: len(slots.open) == 1)
        stays = await ask(door, "stays")
        await eventually(lambda: waiting(door) == 1)
        runs.abort()
        await eventually(lambda: "stays" in slots.order)
        await eventually(lambda: [name for name, _ in slots.open] == ["stays"])
        slots.finish()
        assert (await stays.answer()).status == 200


async def test_another_worker_that_comes_takes_those_who_wait() -> None:
    slots = Slots()
    async with Engine(slots) as engine, Engine() as other:
        fleet = FleetTwin(worker(engine.url, "a", slots=1))
        async with opened(fleet, limits=SPEAKS_SOON) as door:
            await ask(door, "runs")
            await eventually(lambda: len(slots.open) == 1)
            waits = await ask(door, "waits")
            await eventually(lambda: waiting(door) == 1)
            fleet.become(worker(engine.url, "a", slots=1), worker(other.url, "b", slots=1))
            answer = await waits.answer()

    assert (answer.status, answer.headers["x-muster-worker"]) == (200, "b/llama")


async def test_who_waits_for_workers_that_are_gone_is_told() -> None:
    slots = Slots()
    async with Engine(slots) as engine:
        fleet = FleetTwin(worker(engine.url, slots=1))
        async with opened(fleet, limits=SPEAKS_SOON) as door:
            await ask(door, "runs")
            await eventually(lambda: len(slots.open) == 1)
            waits = await ask(door, "waits")
            await eventually(lambda: waiting(door) == 1)
            fleet.become(worker(engine.url, slots=1, draining=True))
            answer = await waits.answer()

    assert (answer.status, answer.json["error"]["code"]) == (503, NoWorker.code)


async def test_pins_have_those_wait_who_named_the_busy_one_and_no_others() -> None:
    slots = Slots()
    async with Engine(slots) as busy, Engine() as free:
        fleet = FleetTwin(worker(busy.url, "a", slots=1), worker(free.url, "b", slots=1))
        async with opened(fleet) as door:
            await ask(door, "runs", "x-muster-node: a")
            await eventually(lambda: len(slots.open) == 1)
            pinned = await ask(door, "pinned", "x-muster-node: a")
            await eventually(lambda: waiting(door) == 1)
            assert (await (await ask(door, "anywhere")).answer()).headers["x-muster-worker"] == "b/llama"
            slots.finish()
            await eventually(lambda: slots.order == ["runs", "pinned"])
            slots.finish()
            assert (await pinned.answer()).status == 200


async def test_of_two_models_of_one_engine_the_slot_goes_to_what_matters_more() -> None:
    slots = Slots()
    models = (Model(name="m"), Model(name="n"))
    async with Engine(slots) as engine, opened(FleetTwin(worker(engine.url, "a", *models, slots=1))) as door:
        await ask(door, "runs", model="m")
        await eventually(lambda: len(slots.open) == 1)
        wires = [await ask(door, "less", "x-priority: 10", model="m")]
        await eventually(lambda: waiting(door) == 1)
        wires.append(await ask(door, "more", "x-priority: 20", model="n"))
        await eventually(lambda: waiting(door) == 2)
        await finish_all(slots, 3)
        assert [(await wire.answer()).status for wire in wires] == [200, 200]

    assert slots.order == ["runs", "more", "less"]


async def test_who_failed_on_one_worker_does_not_wait_for_the_other() -> None:
    slots = Slots()
    async with Engine(slots) as full, Engine(reset) as broken:
        fleet = FleetTwin(worker(full.url, "a", slots=1), worker(broken.url, "b", slots=1))
        async with opened(fleet, strategy=Strategy.BALANCED) as door:
            await ask(door, "runs", "x-muster-node: a")
            await eventually(lambda: len(slots.open) == 1)
            moved = await ask(door, "moved")
            await eventually(lambda: slots.order == ["runs", "moved"])
            await finish_all(slots, 2)
            assert (await moved.answer()).headers["x-muster-worker"] == "a/llama"


async def test_engines_that_tell_no_slots_are_asked_without_bound() -> None:
    slots = Slots()
    async with Engine(slots) as engine, opened(FleetTwin(worker(engine.url))) as door:
        wires = [await ask(door, str(number)) for number in range(5)]
        await eventually(lambda: len(slots.open) == 5)
        await finish_all(slots, 5)
        answers: list[Answer] = [await wire.answer() for wire in wires]

    assert [answer.status for answer in answers] == [200] * 5


async def test_a_stop_ends_every_wait_with_an_error() -> None:
    slots = Slots()
    async with Engine(slots) as engine, opened(FleetTwin(worker(engine.url, slots=1))) as door:
        await ask(door, "runs")
        await eventually(lambda: len(slots.open) == 1)
        wires = [await ask(door, str(number)) for number in range(3)]
        await eventually(lambda: waiting(door) == 3)
        door.gateway.end_all()
        answers = [await wire.answer() for wire in wires]

    assert {answer.status for answer in answers} == {503}
    assert door.reserved == {}


async def test_the_line_and_its_waits_are_measured() -> None:
    slots = Slots()
    async with Engine(slots) as engine, opened(FleetTwin(worker(engine.url, slots=1))) as door:
        wires = [await ask(door, str(number)) for number in range(2)]
        await eventually(lambda: (len(slots.open), waiting(door)) == (1, 1))
        metrics = {metric.family.name: list(metric.samples) for metric in door.gateway.metrics()}
        assert metrics["muster_gateway_waiting"] == [("", ("smollm2-135m",), 1)]
        await finish_all(slots, 2)
        for wire in wires:
            await wire.answer()
        metrics = {metric.family.name: list(metric.samples) for metric in door.gateway.metrics()}

    assert metrics["muster_gateway_waiting"] == []
    assert ("_count", ("smollm2-135m",), 1) in metrics["muster_gateway_wait_seconds"]
