"""What one turn of the loop brought is sent at its end, questions first, and counted last."""

import asyncio

from muster.gateway.figures.usage import Finished
from muster.gateway.http.upstream import Endpoint, UpstreamConnection
from muster.gateway.limits import GatewayLimits
from muster.gateway.turn import Turn
from tests.unit.gateway.http.test_upstream import FakeTransport, Heard


class Noting:
    """A request that notes when it is finished and reckoned, and may fail in either."""

    def __init__(self, name: str, notes: list[str], *, fails: bool = False) -> None:
        self.name, self.notes, self.fails = name, notes, fails

    def finish(self) -> None:
        self._note("finished")

    def reckon(self) -> Finished:
        self._note("reckoned")
        return Finished(self.name, 200)

    def _note(self, event: str) -> None:
        self.notes.append(f"{self.name} {event}")
        if self.fails:
            raise RuntimeError(self.name)


def noted_in(notes: list[str]) -> Turn:
    def record(*finished: Finished) -> None:
        notes.append("recorded " + " ".join(one.path for one in finished))

    return Turn(record)


def connected() -> tuple[UpstreamConnection, FakeTransport]:
    connection, transport = UpstreamConnection(Endpoint("http://engine", GatewayLimits())), FakeTransport()
    connection.connection_made(transport)
    connection.await_answer(Heard())
    return connection, transport


async def next_turn() -> None:
    """Return when the loop has done what was to be done before this was asked for."""
    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(done.set)
    await done.wait()


async def test_questions_and_answers_go_at_the_end_of_the_turn_they_came_in() -> None:
    notes = list[str]()
    turn = noted_in(notes)
    connection, transport = connected()
    request = Noting("a", notes)
    turn.count(request)
    turn.answer(request)
    turn.ask(connection, b"question")
    assert (transport.written, notes) == (b"", [])

    await next_turn()
    assert (transport.written, notes) == (b"question", ["a finished", "a reckoned", "recorded a"])
    await next_turn()
    assert notes == ["a finished", "a reckoned", "recorded a"], "once"


async def test_a_fault_with_one_request_spares_the_others() -> None:
    notes = list[str]()
    turn = noted_in(notes)
    for request in (Noting("bad", notes, fails=True), Noting("good", notes), Noting("better", notes)):
        turn.answer(request)
        turn.count(request)

    await next_turn()
    finished, reckoned = notes[:3], notes[3:]
    assert finished == ["bad finished", "good finished", "better finished"]
    assert reckoned == ["bad reckoned", "good reckoned", "better reckoned", "recorded good better"], "together"


async def test_what_follows_from_an_answer_goes_in_the_next_turn() -> None:
    notes = list[str]()
    turn = noted_in(notes)

    class Followed(Noting):
        def finish(self) -> None:
            super().finish()
            turn.answer(Noting("next", self.notes))

    turn.answer(Followed("first", notes))
    turn.end()
    assert notes == ["first finished"]
    await next_turn()
    assert notes == ["first finished", "next finished"]


async def test_nothing_is_sent_on_a_connection_that_was_dropped_meanwhile() -> None:
    turn = noted_in([])
    connection, transport = connected()
    turn.ask(connection, b"question")
    connection.drop()

    turn.end()
    assert transport.written == b""
