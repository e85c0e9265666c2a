from contextlib import ExitStack
from functools import partial

import pytest

from muster.events.reader import Reader
from muster.events.selection import Selection
from muster.events.turns import Told, Turns


async def got(reader: Reader) -> bytes:
    return (await reader.take(0))[0]


@pytest.fixture
def listening() -> ExitStack:
    return ExitStack()


def joined(rounds: Turns, listening: ExitStack, selection: Selection | None = None) -> Reader:
    reader = Reader(100, selection)
    listening.enter_context(rounds.reader(reader))
    return reader


async def test_a_turn_serves_so_many_and_the_next_one_goes_on_with_those_who_waited_longest(
    listening: ExitStack,
) -> None:
    rounds = Turns(readers_per_turn=2)
    first, second, third = (joined(rounds, listening) for _ in range(3))
    rounds.tell([Told(b"a")])
    rounds.turn()
    assert [await got(first), await got(second), await got(third)] == [b"a", b"a", b""]
    rounds.tell([Told(b"b")])
    rounds.turn()
    assert [await got(third), await got(first), await got(second)] == [b"ab", b"b", b""]
    rounds.turn()
    rounds.turn()
    assert [await got(second), await got(third), await got(first)] == [b"b", b"", b""]


async def test_who_comes_gets_only_what_is_told_from_then_on(listening: ExitStack) -> None:
    rounds = Turns(readers_per_turn=1)
    early = joined(rounds, listening)
    rounds.tell([Told(b"a")])
    late = joined(rounds, listening)
    rounds.tell([Told(b"b")])
    rounds.turn()
    rounds.turn()
    assert [await got(early), await got(late)] == [b"ab", b"b"]


async def test_nothing_is_kept_for_nobody_and_who_leaves_holds_nothing_up(listening: ExitStack) -> None:
    rounds = Turns(readers_per_turn=1)
    rounds.tell([Told(b"a")])
    with rounds.reader(Reader(100)):
        stays = joined(rounds, listening)
        rounds.tell([Told(b"b")])
    rounds.turn()
    assert await got(stays) == b"b"
    listening.close()
    assert len(rounds) == 0
    assert not rounds._told


async def test_who_chose_gets_what_concerns_the_choice_and_lines_are_for_choosers_alone(listening: ExitStack) -> None:
    rounds = Turns(readers_per_turn=9)
    whole = joined(rounds, listening)
    one = joined(rounds, listening, Selection(frozenset({"n1"})))
    lined = joined(rounds, listening, Selection(frozenset({"n2"}), lines=True))
    rounds.tell([Told(b"1", partial(Selection.has_machine, machine_id="n1"))])
    rounds.tell([Told(b"2", partial(Selection.has_machine, machine_id="n2")), Told(b"all")])
    rounds.tell([Told(b"-", Selection.has_lines, to_choosers_only=True)])
    rounds.turn()
    assert [await got(whole), await got(one), await got(lined)] == [b"12all", b"1all", b"2all-"]


async def test_after_a_loss_nothing_from_before_it_is_told(listening: ExitStack) -> None:
    rounds = Turns(readers_per_turn=9)
    reader = joined(rounds, listening)
    rounds.tell([Told(b"a")])
    rounds.lose("too much at once")
    rounds.tell([Told(b"b")])
    assert await reader.take(0) == (b"", "too much at once")
    rounds.turn()
    assert await got(reader) == b"b"


async def test_what_concerns_nobody_of_a_turn_is_not_handed_over(listening: ExitStack) -> None:
    rounds = Turns(readers_per_turn=9)
    reader = joined(rounds, listening, Selection(frozenset({"n1"})))
    rounds.tell([Told(b"2", partial(Selection.has_machine, machine_id="n2"))])
    rounds.turn()
    assert await got(reader) == b""
