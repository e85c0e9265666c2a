"""The three ways to show it: for programs, for a pipe, and live."""

import queue
import shutil
import sys
import time
from typing import Any

from rich.console import Console

from muster.cli.client import Client
from muster.cli.tables import print_json
from muster.cli.top.cells import PLAIN, PRETTY, Glyphs
from muster.cli.top.frame import Drawing, Link
from muster.cli.top.live import Errands, Stream
from muster.cli.top.picture import Picture
from muster.cli.top.screen import Screen

_PAGE = 1000
_FRAMES_PER_S = 4.0
_TICK_S = 1.0  # ages and the state of the connection move without any event
_WIDTH_WITHOUT_TERMINAL = 160


def as_json(client: Client) -> None:
    pages, queues = _state(client)
    machines = [machine for page in pages for machine in page["machines"]]
    workers = [worker for page in pages for worker in page["workers"]]
    print_json(pages[0] | {"machines": machines, "workers": workers, "queues": queues})


def _state(client: Client) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the state, a page for each thousand nodes, and the queues."""
    pages: list[dict[str, Any]] = []
    while True:
        answer = client.get("/api/monitor/state", page=len(pages) + 1, limit=_PAGE)
        pages.append(answer["data"])
        if len(pages) * _PAGE >= answer["pagination"]["total"]:
            return pages, client.get("/api/queues")["queues"]


def once(client: Client) -> None:
    picture = Picture()
    pages, queues = _state(client)
    picture.take_state(pages)
    picture.queues = queues
    width = shutil.get_terminal_size((_WIDTH_WITHOUT_TERMINAL, 0)).columns
    drawing = Drawing(picture, Screen(), _glyphs(), client.url, _now_ms())
    out = Console(highlight=False, soft_wrap=True)
    for line in drawing.plain(Link(live=True, words="ONCE"), width):
        out.print(line)


def live(client: Client) -> None:
    from muster.cli.top.terminal import Terminal  # needs what only POSIX has

    picture, screen, glyphs = Picture(), Screen(), _glyphs()
    with Terminal() as terminal:
        stream, errands = Stream(client, terminal.wake), Errands(client, terminal.wake)
        stream.start()
        errands.start()
        painted_s = 0.0
        try:
            while not screen.left:
                _take_in(picture, screen, stream, errands)
                size = terminal.size
                drawing = Drawing(picture, screen, glyphs, client.url, _now_ms())
                terminal.paint(drawing.frame(stream.link(time.monotonic()), size), size)
                painted_s = time.monotonic()
                if picture.selective:
                    stream.want(screen.shown, painted_s)
                keys = terminal.keys(_TICK_S)
                if not keys and keys is not None:  # events only: they are gathered for a moment
                    keys = terminal.keys(max(0.0, painted_s + 1 / _FRAMES_PER_S - time.monotonic()), only_keys=True)
                if keys is None:
                    break
                for key in keys:
                    deed = screen.press(key, picture)
                    if deed is not None:
                        errands.do(deed)
        finally:
            stream.stop()
            errands.stop()


def _take_in(picture: Picture, screen: Screen, stream: Stream, errands: Errands) -> None:
    now_s, now_ms = time.monotonic(), _now_ms()
    try:
        while True:
            picture.take(stream.events.get_nowait(), now_s, now_ms)
    except queue.Empty:
        pass
    while not errands.told.empty():
        told = errands.told.get()
        if told.queues is not None:
            picture.queues = told.queues
            picture.take_waiting(told.waiting)
        else:
            screen.message = told.message


def _glyphs() -> Glyphs:
    return PRETTY if (sys.stdout.encoding or "").lower().startswith("utf") else PLAIN


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
