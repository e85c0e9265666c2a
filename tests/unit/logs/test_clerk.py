"""Who answers what is asked of logs: again where it was not heard, no more where nobody listens."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from muster.errors import Forbidden, UpstreamFailed
from muster.ids import NodeId
from muster.logs import clerk as module
from muster.logs.clerk import LogClerk
from muster.logs.shelf import LogShelf
from muster.system import SystemClock
from muster.wire import LogAsk, LogChunk, LogChunkReply
from muster.wire.logs import LogWish
from tests.waiting import eventually

Ask = Callable[..., LogAsk]


class Plane:
    def __init__(self) -> None:
        self.heard: list[LogChunk] = []
        self.trouble: list[Exception] = []
        self.reply = LogChunkReply(wanted=True)

    async def take(self, chunk: LogChunk) -> LogChunkReply:
        self.heard.append(chunk)
        if self.trouble:
            raise self.trouble.pop(0)
        return self.reply

    @property
    def texts(self) -> list[str]:
        return [line.text for chunk in self.heard for line in chunk.lines]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(module, "_SIGN_EVERY_S", 0.05)


@pytest.fixture
def plane() -> Plane:
    return Plane()


@pytest.fixture
async def clerk(plane: Plane, tmp_path: Path) -> AsyncIterator[LogClerk]:
    (tmp_path / "a.log").write_text("one\ntwo\n")
    (tmp_path / "b.log").write_text("three\n")
    clerk = LogClerk(LogShelf(tmp_path, SystemClock()), plane.take, SystemClock(), sender="n1")
    await clerk.start()
    yield clerk
    await clerk.stop()


def ask(action: str = "read", **wish: object) -> LogAsk:
    return LogAsk(
        ask_id=f"ask-{action}",
        plane_id="p",
        node_id=NodeId("n1"),
        action=action,  # type: ignore[arg-type]  # a test's own shorthand
        wish=LogWish(**wish),  # type: ignore[arg-type]  # as above
    )


async def test_an_answer_is_numbered_and_ends_once_however_often_it_is_asked(clerk: LogClerk, plane: Plane) -> None:
    clerk.take([ask(logs=("a",)), ask(logs=("a",))])
    await eventually(lambda: plane.heard and plane.heard[-1].ended)
    clerk.take([ask(logs=("a",))])
    assert [chunk.number for chunk in plane.heard] == list(range(1, len(plane.heard) + 1))
    assert plane.texts == ["one", "two"]
    assert [chunk.caught_up for chunk in plane.heard].count(True) == 1
    await eventually(lambda: clerk._running == {})


async def test_what_was_not_heard_is_said_again_under_the_same_number(clerk: LogClerk, plane: Plane) -> None:
    plane.trouble = [UpstreamFailed("away"), UpstreamFailed("away")]
    clerk.take([ask("list")])
    await eventually(lambda: plane.heard and plane.heard[-1].ended)
    assert [chunk.number for chunk in plane.heard] == [1, 1, 1, 2]
    assert [info.name for info in plane.heard[2].logs] == ["a", "b"]


async def test_a_slow_reader_is_waited_for(clerk: LogClerk, plane: Plane) -> None:
    plane.reply = LogChunkReply(wanted=True, taken=False)
    clerk.take([ask("list")])
    await eventually(lambda: len(plane.heard) > 5)
    assert {chunk.number for chunk in plane.heard} == {1}
    plane.reply = LogChunkReply(wanted=True)
    await eventually(lambda: plane.heard[-1].ended)


async def test_nothing_more_is_said_where_nobody_wants_it(clerk: LogClerk, plane: Plane) -> None:
    plane.reply = LogChunkReply(wanted=False)
    clerk.take([ask(follow=True)])
    await eventually(lambda: plane.heard and not clerk._running)
    assert len(plane.heard) == 1


async def test_a_control_plane_that_refuses_is_not_asked_for_ever(clerk: LogClerk, plane: Plane) -> None:
    plane.trouble = [Forbidden("no"), Forbidden("no")]
    clerk.take([ask(follow=True)])
    await eventually(lambda: len(plane.heard) == 2 and not clerk._running)


async def test_a_follower_hears_that_we_live(clerk: LogClerk, plane: Plane, tmp_path: Path) -> None:
    clerk.take([ask(follow=True, tail=1)])
    await eventually(lambda: any(chunk.caught_up for chunk in plane.heard))
    count = len(plane.heard)
    await eventually(lambda: len(plane.heard) >= count + 2)
    assert not plane.heard[-1].lines
    with (tmp_path / "a.log").open("a") as file:
        file.write("news\n")
    await eventually(lambda: plane.texts == ["two", "three", "news"])


async def test_what_is_not_there_is_told_with_what_is(clerk: LogClerk, plane: Plane) -> None:
    clerk.take([ask(logs=("c",))])
    await eventually(lambda: plane.heard and plane.heard[-1].ended)
    assert (plane.heard[-1].error_code, plane.heard[-1].error) == ("not_found", "no log c here; there are a, b")
