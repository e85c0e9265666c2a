from itertools import islice

import pytest

from muster.cli.client import Client, Refused, Unreachable
from muster.cli.follow import GIVE_UP_AFTER_S, follow
from tests.unit.cli.stub_plane import Reply, StubPlane, sse


class Time:
    """Every pause takes as long as it says, at once."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        self.now_s += seconds


def test_a_stream_that_ends_is_taken_up_where_it_broke_off(plane: StubPlane) -> None:
    plane.on("GET", "/events", Reply(frames=sse(1, 2)), Reply(frames=sse(3, first_id=3)))
    time = Time()

    seen = list(islice(follow(Client(plane.url), "/events", pause=time.pause, now=time.now), 3))

    assert [event.data for event in seen] == [b"1", b"2", b"3"]
    first, second = plane.requests
    assert "last-event-id" not in first.headers
    assert second.headers["last-event-id"] == "2"


def test_a_reader_can_begin_after_an_event(plane: StubPlane) -> None:
    plane.on("GET", "/events", Reply(frames=sse(1)))

    next(follow(Client(plane.url), "/events", after="41"))

    assert plane.requests[0].headers["last-event-id"] == "41"


def test_a_control_plane_that_stays_away_is_given_up() -> None:
    time = Time()

    with pytest.raises(Unreachable):
        list(follow(Client("http://127.0.0.1:1"), "/events", pause=time.pause, now=time.now))

    assert GIVE_UP_AFTER_S <= time.now_s <= GIVE_UP_AFTER_S + 2


def test_a_control_plane_that_is_restarting_is_waited_for(plane: StubPlane) -> None:
    stopping = Reply({"code": "shutting_down", "message": "stopping"}, 503)
    plane.on("GET", "/events", stopping, Reply(frames=sse("back")))
    time = Time()

    assert next(follow(Client(plane.url), "/events", pause=time.pause, now=time.now)).data == b'"back"'


def test_a_refusal_is_not_tried_again(plane: StubPlane) -> None:
    plane.on("GET", "/events", Reply({"code": "job_not_found", "message": "no such job"}, 404))

    with pytest.raises(Refused, match="no such job"):
        list(follow(Client(plane.url), "/events"))
