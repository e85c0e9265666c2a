"""How much background work the fleet has room for."""

from typing import Any

import pytest

from muster.domain.model import Model
from muster.domain.service import Dialect, ServiceStatus
from muster.ids import NodeId
from muster.placement.candidate import Candidate
from muster.placement.idle import Hands, engine_room, room
from muster.placement.wish import Wish

WISH = Wish(model="m")


def engine(node: str = "n1", service: str = "llm", **fields: Any) -> Candidate:
    base: dict[str, Any] = {
        "key": f"{node}/{service}",
        "node_id": NodeId(node),
        "service": service,
        "connector": "llamacpp",
        "url": "http://n1:1",
        "dialects": (Dialect.OPENAI,),
        "models": {"m:latest": Model(name="m", capabilities=("completion",)), "m": Model(name="m")},
        "slots": 4,
    }
    return Candidate(**(base | fields))


def hands(slots: int = 8, **fields: int) -> dict[NodeId, Hands]:
    return {NodeId(node): Hands(slots=slots, **fields) for node in ("n1", "n2")}


@pytest.mark.parametrize(
    ("slots", "in_flight", "expected"),
    [
        (4, 0, 3),
        (4, 1, 1),
        (4, 3, 1),
        (4, 4, 0),
        (4, 9, 0),
        (1, 0, 1),
        (1, 1, 0),
        (2, 1, 1),
        (None, 0, 1),
        (None, 1, 0),
    ],
)
def test_people_go_first(slots: int | None, in_flight: int, expected: int) -> None:
    assert engine_room(engine(slots=slots), in_flight) == expected


def test_what_an_engine_says_of_its_slots_holds_nothing_up_for_it_may_be_the_work_itself() -> None:
    assert engine_room(engine(slots=1, slots_busy=1), 0) == 1


def test_no_more_than_the_workers_of_a_node_can_run() -> None:
    assert room(WISH, [engine()], {}, hands(2)) == 2
    assert room(WISH, [engine()], {}, hands(3, others=2)) == 1
    assert room(WISH, [engine()], {}, hands(1, others=2)) == 0
    assert room(WISH, [engine(), engine(service="other")], {}, hands(4)) == 4
    assert room(WISH, [engine()], {}, {}) == 0


def test_nodes_add_up_and_only_those_that_take_work_count() -> None:
    assert room(WISH, [engine(), engine("n2")], {}, hands()) == 6
    assert room(WISH, [engine(), engine("n2")], {"n2/llm": 4}, hands()) == 3
    assert room(WISH, [engine(draining=True), engine("n2", status=ServiceStatus.UNHEALTHY)], {}, hands()) == 0
    assert room(Wish(model="another"), [engine()], {}, hands()) == 0
