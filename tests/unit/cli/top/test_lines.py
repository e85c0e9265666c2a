"""A fleet that is too large to be told whole: a line of each node, and in full what is on the screen."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import msgspec

from muster.api.lines import machine_line
from muster.cli.client import Client
from muster.cli.top import rows
from muster.cli.top.cells import PLAIN
from muster.cli.top.frame import Drawing, Link, Size
from muster.cli.top.lines import is_line
from muster.cli.top.live import Stream
from muster.cli.top.picture import Picture
from muster.cli.top.screen import Screen
from muster.domain.node import Health, Node, NodeFacts
from muster.domain.worker import Worker, WorkerStatus
from muster.ids import NodeId, WorkerId
from tests.unit.cli.stub_plane import Reply, StubPlane
from tests.unit.cli.top.fleets import NOW_MS, gpu, machine_update, snapshot
from tests.waiting import eventually_sync

STREAM = "/api/events/monitor"


def line(node_id: str, busy: int = 0, **figures: Any) -> Any:
    """Return a node's line as the API tells it: what is as usual is left out."""
    workers = tuple(
        Worker(
            worker_id=WorkerId(f"{node_id}-worker-{index}"),
            index=index,
            status=WorkerStatus.BUSY if index < busy else WorkerStatus.IDLE,
        )
        for index in range(2)
    )
    facts = NodeFacts(node_id=NodeId(node_id), pool="gpus", labels={"zone": "a"})
    node = Node(facts=facts, health=Health.HEALTHY, last_seen_ms=NOW_MS, gpus=(gpu(**figures),), workers=workers)
    return json.loads(msgspec.json.encode(machine_line(node, late=False)))


def large(*lines: Any, full: tuple[Any, ...] = ()) -> Any:
    told = snapshot(*full)
    return told | {"data": told["data"] | {"lines": list(lines)}}


def picture_of_lines(*lines: Any, full: tuple[Any, ...] = ()) -> Picture:
    picture = Picture()
    picture.take(large(*lines, full=full), 0.0, NOW_MS)
    return picture


def test_nodes_are_listed_filtered_and_sorted_by_their_lines() -> None:
    lines = (line("a", utilization_percent=10.0), line("b", busy=2, utilization_percent=90.0))
    picture = picture_of_lines(*lines)
    by_use = next(sort for sort in rows.NODE_SORTS if sort.name == "util")

    assert picture.selective
    assert [row["machine_id"] for row in rows.nodes(picture, "zone=a gpus", by_use, turned=False)] == ["b", "a"]
    load = rows.load_of(picture.machines["b"])
    assert (load.utilization, load.memory, load.temperature_c) == (0.9, 0.25, None)
    assert [worker["status"] for worker in picture.workers["b"]] == ["busy", "busy"]
    assert [worker["status"] for worker in picture.workers["a"]] == ["not busy", "not busy"]


def test_what_is_known_in_full_is_not_replaced_by_a_line() -> None:
    picture = picture_of_lines(line("a"), line("b"), full=(machine_update("a", gpu()),))
    picture.take({"type": "machine_lines", "lines": [line("a"), line("c", busy=1)], "removed": ["b"]}, 0.0, NOW_MS)

    assert {name: is_line(machine) for name, machine in picture.machines.items()} == {"a": False, "c": True}
    assert rows.load_of(picture.machines["a"]).temperature_c == 61.0


def test_a_small_fleet_is_told_whole() -> None:
    picture = Picture()
    picture.take(snapshot(machine_update("a")), 0.0, NOW_MS)
    assert not picture.selective


def test_frames_say_what_a_line_does_not_know_and_which_nodes_they_show() -> None:
    picture, screen = picture_of_lines(line("a", busy=1), line("b")), Screen()
    frame = Drawing(picture, screen, PLAIN, "http://plane", NOW_MS).frame(Link(live=True, words="LIVE"), Size(160, 30))
    text = "\n".join(each.plain for each in frame)

    assert screen.shown == {"a", "b"}
    assert "workers 4: 3 not busy, 1 busy" in text
    assert "1/2" in text
    assert "a: waiting for the rest" in text
    (row,) = (each.plain for each in frame if each.plain.startswith(" b"))
    assert row.split()[-1] == "?", "when it was heard is not known"


def test_it_is_not_sorted_by_what_lines_do_not_have() -> None:
    picture, screen = picture_of_lines(line("a")), Screen()
    seen = []
    for _ in rows.NODE_SORTS:
        screen.press("s", picture)
        seen.append(screen.listing.sort.name)

    assert not {"temp", "power", "heard"} & set(seen)
    assert set(seen) == {"node", "health", "util", "vram", "busy"}


def test_nodes_that_come_onto_the_screen_are_asked_for_in_full(plane: StubPlane) -> None:
    def endless() -> Iterator[bytes]:
        while not released.wait(0.01):
            yield f"id: 5\ndata: {json.dumps({'type': 'tick'})}\n\n".encode()

    released = threading.Event()
    plane.on("GET", STREAM, Reply(frames=endless()), Reply(frames=endless()))
    stream = Stream(Client(plane.url), lambda: None)
    stream.start()
    try:
        stream.events.get(timeout=10)
        stream.want(frozenset({"n2", "n1"}), 0.0)
        eventually_sync(lambda: len(plane.asked(STREAM)) == 2)
    finally:
        released.set()
        stream.stop()

    first, second = plane.asked(STREAM)
    assert (first.query, second.query) == (
        {"whole_up_to": "200", "all_jobs": "true"},
        {"whole_up_to": "200", "all_jobs": "true", "machines": "n1,n2"},
    )
    assert second.headers.get("last-event-id") is None, "a resumed stream would begin without a snapshot"
