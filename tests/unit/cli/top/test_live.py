import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from muster.cli.client import Client
from muster.cli.top.live import Errands, Stream
from muster.cli.top.screen import Deed
from tests.unit.cli.stub_plane import Reply, StubPlane
from tests.waiting import eventually_sync

STREAM = "/api/events/monitor"


def frame(event: dict[str, object], event_id: str = "") -> bytes:
    return (f"id: {event_id}\n" if event_id else "").encode() + f"data: {json.dumps(event)}\n\n".encode()


@contextmanager
def streaming(plane: StubPlane, wake: Callable[[], None] = lambda: None) -> Iterator[Stream]:
    stream = Stream(Client(plane.url), wake)
    stream.start()
    yield stream
    stream.stop()


@contextmanager
def errands(plane: StubPlane) -> Iterator[Errands]:
    doing = Errands(Client(plane.url), lambda: None)
    doing.start()
    yield doing
    doing.stop()


class Told:
    """What was told, in its order."""

    def __init__(self, doing: Errands) -> None:
        self._doing = doing
        self.messages: list[str] = []

    def has(self, words: str) -> bool:
        while not self._doing.told.empty():
            if message := self._doing.told.get().message:
                self.messages.append(message)
        return any(words in message for message in self.messages)


def test_a_stream_that_ends_is_taken_up_where_it_broke_off(plane: StubPlane) -> None:
    released = threading.Event()

    def second() -> Iterator[bytes]:
        yield frame({"type": "third"})
        released.wait(10)

    first = [frame({"type": "first"}, "7"), frame({"type": "second"})]
    plane.on("GET", STREAM, Reply(frames=first), Reply(frames=second()))
    woken = threading.Event()
    with streaming(plane, woken.set) as stream:
        kinds = [stream.events.get(timeout=10)["type"] for _ in range(3)]
        assert stream.link(0.0).words == "LIVE"
        released.set()

    assert kinds == ["first", "second", "third"]
    assert [request.headers.get("last-event-id") for request in plane.asked(STREAM)[:2]] == [None, "7"]
    assert woken.is_set()


def test_why_there_is_no_connection_is_said_with_a_next_step(plane: StubPlane) -> None:
    denied = {"code": "unauthorized", "message": "a token is needed", "retriable": False}
    plane.on("GET", STREAM, Reply(denied, 401))
    with streaming(plane) as stream:
        words = eventually_sync(lambda: "NOT" in stream.link(0.0).words and stream.link(0.0).words)

    assert "a token is needed; set MUSTER_TOKEN" in str(words)


def test_before_the_first_word_it_is_connecting(plane: StubPlane) -> None:
    assert Stream(Client(plane.url), lambda: None).link(0.0).words == "CONNECTING"


def test_a_stream_that_falls_silent_is_not_called_live(plane: StubPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def endless() -> Iterator[bytes]:
        yield frame({"type": "first"})
        released.wait(10)

    monkeypatch.setattr("muster.cli.top.live.time.monotonic", lambda: 100.0)
    plane.on("GET", STREAM, Reply(frames=endless()))
    with streaming(plane) as stream:
        stream.events.get(timeout=10)
        assert stream.link(105.0).live
        assert stream.link(108.0).words == "SILENT for 8s"
        assert not stream.link(108.0).live
        released.set()


def test_what_came_of_a_deed_is_told(plane: StubPlane) -> None:
    command = {"command_id": "c1", "state": "sent", "commands": [{"error": None}]}
    plane.on("POST", "/api/v1/command", Reply(command))
    plane.on("GET", "/api/v1/commands/c1", Reply(command), Reply(command | {"state": "done"}))
    plane.on("POST", "/api/jobs/j1/cancel", Reply({"job": {"status": "cancelled"}}))
    with errands(plane) as doing:
        told = Told(doing)
        for deed in (Deed("drain", "n1"), Deed("cancel", "j1"), Deed("cancel", "gone")):
            doing.do(deed)
        eventually_sync(lambda: told.has("gone: nothing"))

    assert [text for text in told.messages if not text.endswith("under way")][:2] == [
        "drain n1: done",
        "cancel j1: cancelled",
    ]
    assert plane.asked("/api/v1/command")[0].body == {"node_id": "n1", "command": "drain"}


def test_a_command_that_was_not_done_says_why(plane: StubPlane) -> None:
    command = {"command_id": "c1", "state": "expired", "commands": [{"error": "no answer by its deadline"}]}
    plane.on("POST", "/api/v1/command", Reply(command))
    with errands(plane) as doing:
        told = Told(doing)
        doing.do(Deed("resume", "n1"))
        eventually_sync(lambda: told.has("expired"))

    assert told.messages[-1] == "resume n1: expired: no answer by its deadline"


def test_queues_and_who_waits_are_read_now_and_then(plane: StubPlane) -> None:
    plane.on("GET", "/api/jobs", Reply({"jobs": [{"job_id": "j1"}]}))
    plane.on("GET", "/api/queues", Reply({"queues": [{"name": "q"}]}))
    with errands(plane) as doing:
        told = doing.told.get(timeout=10)

    assert told.queues == [{"name": "q"}]
    assert [job["job_id"] for job in told.waiting] == ["j1", "j1"]
    assert [request.query["status"] for request in plane.asked("/api/jobs")] == ["pending", "unworkable"]
