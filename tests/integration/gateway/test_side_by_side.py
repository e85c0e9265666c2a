"""Two gateways in front of one engine: they hear of each other, share its slots and take turns."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest

from muster.access.book import Caller
from muster.access.roles import GRANTS, Role
from muster.control.fleet.gateway_load import GatewayLoad
from muster.gateway.admission import admission
from muster.stores.memory import MemoryStore
from muster.system import SystemClock
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import Engine
from tests.integration.gateway.fleet import FleetTwin, worker
from tests.integration.gateway.test_admission import Slots, ask, finish_all, waiting
from tests.waiting import eventually

PATIENT_S = 10.0  # nobody who gives way tires of it on a slow machine


def to_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_GIVES_WAY_S", PATIENT_S)
    monkeypatch.setattr(admission, "_LEAD_S", 0.0)


@asynccontextmanager
async def two_doors(engine: Engine, slots: int) -> AsyncIterator[tuple[Door, Door]]:
    """Any name is a token."""
    clock = SystemClock()
    store = MemoryStore(clock)
    async with AsyncExitStack() as running:
        doors = []
        for number in range(2):
            door = await running.enter_async_context(opened(FleetTwin(worker(engine.url, slots=slots)), who=_caller))
            load = GatewayLoad(store.bus, clock, f"plane-{number}", beside=lambda: ["another"])
            load.join(door.gateway.side)
            await load.start()
            running.push_async_callback(load.stop)
            doors.append(door)
        yield doors[0], doors[1]


async def test_a_slot_that_one_gateway_has_taken_is_taken_for_the_other() -> None:
    slots = Slots()
    async with Engine(slots) as engine, two_doors(engine, slots=1) as (here, there):
        first = await ask(here, "first")
        await eventually(lambda: len(slots.open) == 1)
        await eventually(lambda: there.gateway._router.in_flight)
        second = await ask(there, "second")
        await eventually(lambda: waiting(there) == 1)
        await finish_all(slots, 2)
        assert [(await wire.answer()).status for wire in (first, second)] == [200, 200]
        assert (slots.order, slots.most) == (["first", "second"], 1)


async def test_a_long_line_at_one_gateway_leaves_its_turn_to_who_waits_at_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    to_the_turn(monkeypatch)
    slots = Slots()
    async with Engine(slots) as engine, two_doors(engine, slots=1) as (here, there):
        wires = [await ask(here, "0")]
        await eventually(lambda: len(slots.open) == 1)
        await eventually(lambda: there.gateway._router.in_flight)
        for number in (1, 2):
            wires.append(await ask(here, str(number)))
            await eventually(partial(_waits, here, number))
        wires.append(await ask(there, "elsewhere"))
        await eventually(lambda: here.gateway._admission._elsewhere)
        wires.append(await ask(here, "3"))
        await eventually(partial(_waits, here, 3))

        await finish_all(slots, 5)
        assert {(await wire.answer()).status for wire in wires} == {200}
        assert (slots.order, slots.most) == (["0", "1", "2", "elsewhere", "3"], 1)


def _caller(shown: bytes | None) -> Caller:
    name = (shown or b"anybody").decode()
    return Caller(name=name, role=Role.CLIENT, rights=GRANTS[Role.CLIENT], token_id=name)


@pytest.mark.parametrize(
    ("lead_s", "order"),
    [
        (0.0, ["much1", "less1", "much2", "less2", "much3", "much4", "much5"]),
        (1e6, ["much1", "much2", "much3", "much4", "less1", "less2", "much5"]),
    ],
    ids=["in turn", "ahead where answers are short"],
)
async def test_callers_take_turns_over_the_lines_of_all_gateways_together(
    monkeypatch: pytest.MonkeyPatch, lead_s: float, order: list[str]
) -> None:
    to_the_turn(monkeypatch)
    monkeypatch.setattr(admission, "_LEAD_S", lead_s)
    slots = Slots()
    async with Engine(slots) as engine, two_doors(engine, slots=1) as (here, there):
        wires = [await ask(here, "runs")]
        await eventually(lambda: len(slots.open) == 1)
        await eventually(lambda: there.gateway._router.in_flight)
        for door, names in ((here, ["much1", "much2", "much3", "much4"]), (there, ["less1", "less2", "much5"])):
            for waits, name in enumerate(names, start=1):
                wires.append(await ask(door, name, f"authorization: Bearer {name[:4]}"))
                await eventually(partial(_waits, door, waits))
        await eventually(lambda: here.gateway._admission._elsewhere and there.gateway._admission._elsewhere)

        await finish_all(slots, 8)
        assert {(await wire.answer()).status for wire in wires} == {200}
        assert (slots.order, slots.most) == (["runs", *order], 1)


def _waits(door: Door, count: int) -> bool:
    return waiting(door) == count
