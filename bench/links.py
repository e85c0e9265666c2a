"""The links measured: a thousand agents with real messages of 2 KB on a real control plane with its own Valkey.

    python -m bench.links                     the table: http, grpc, memory, and amqp where a RabbitMQ is installed
    python -m bench.links --quick             the same with fewer agents in a few seconds, to see whether it works
    python -m bench.links --only grpc,http

At saturation every agent sends its next heartbeat as soon as the last is answered; over the broker, which answers
nobody, a backlog is read. `memory` is an agent in the control plane's own process: what a heartbeat costs without any
link. With two cores or more the control plane has the first for itself and the load the others. Figures are from this
machine and this moment; compare only what was measured together.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import structlog
import uvloop
from bench.gateway_load import free_ports, on_core
from bench.links_load import heartbeat
from msgspec import Struct
from msgspec.structs import replace
from tests.rabbitmq import RabbitMq

from muster.app.control_plane import ControlPlane
from muster.settings import Settings

_KINDS = ("http", "grpc", "amqp", "memory")
_READY_S = 60.0
_ORDER_S = 120.0
_BROKER_QUEUE = re.compile(rb'muster_broker_messages_total\{queue="heartbeat[^"]*"\} (\d+)')


class Sizes(Struct, frozen=True):
    agents: int
    seconds: float
    backlog: int
    interval_s: float
    paced_s: float
    dropped: int


_FULL = Sizes(agents=1000, seconds=6.0, backlog=40_000, interval_s=5.0, paced_s=20.0, dropped=10)
_QUICK = Sizes(agents=100, seconds=1.0, backlog=4_000, interval_s=1.0, paced_s=3.0, dropped=2)


class Figures(Struct, kw_only=True):
    link: str
    beats_per_s: float
    cpu_us: float  # of the control plane's process, for one heartbeat at saturation
    store_cpu_us: float
    paced_cpu_percent: float | None = None
    memory_mb: float | None = None
    memory_kb_per_node: float | None = None
    out_of_placement_s: float | None = None


class Plane:
    """A control plane's process, with its store below it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = psutil.Process(process.pid)
        self.url = f"http://127.0.0.1:{port}"

    def cpu_s(self) -> tuple[float, float]:
        """Return that of the control plane and that of the store."""
        children = self.process.children(recursive=True)
        return sum(self.process.cpu_times()[:2]), sum(sum(child.cpu_times()[:2]) for child in children)

    def memory_mb(self) -> float:
        return float(self.process.memory_full_info().uss) / 2**20

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            body: bytes = answer.read()
            return body

    def takes_work(self, node_id: str) -> bool:
        node = json.loads(self.get(f"/api/v1/nodes/{node_id}"))
        return bool(node["connected"]) and not node["late"]

    def broker_beats(self) -> int:
        found = _BROKER_QUEUE.search(self.get("/metrics"))
        return int(found.group(1)) if found else 0


class Load:
    """The process of the agents."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def order(self, *words: object) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(str(word) for word in words).encode() + b"\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load ended before it was done; its reason is above")
        answer: dict[str, float] = json.loads(line)
        return answer


@contextlib.contextmanager
def running_plane(folder: Path, **env: str) -> Iterator[Plane]:
    [port] = free_ports(1)
    settings = {
        "MUSTER_LISTEN": f"127.0.0.1:{port}",
        "MUSTER_DATA_DIR": str(folder / "data"),
        "MUSTER_LOG_LEVEL": "error",
        "MUSTER_DEAD_AFTER_S": "1000",
        "HOME": str(folder),
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    process = subprocess.Popen(
        on_core(0, [sys.executable, "-m", "muster.cli.main", "server"]), env=clean | settings | env, cwd=folder
    )
    try:
        plane = Plane(process, port)
        _until(lambda: plane.get("/health"), _READY_S)
        yield plane
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def running_load(kind: str, url: str, sizes: Sizes) -> Iterator[Load]:
    command = [sys.executable, "-m", "bench.links_load", kind, url, str(sizes.agents), str(sizes.interval_s)]
    process = subprocess.Popen(on_core(1, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Load(process)
    finally:
        process.kill()
        process.wait()


def _until(look: Callable[[], object], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError):
            if look():
                return
        if time.monotonic() > deadline_s:
            raise RuntimeError("the control plane did not get there in time")
        time.sleep(0.02)


@contextlib.contextmanager
def _address(kind: str, folder: Path) -> Iterator[tuple[dict[str, str], Callable[[Plane], str]]]:
    """Say what the control plane is to be told, and where the agents find their way to it."""
    if kind == "grpc":
        [port] = free_ports(1)
        yield {"MUSTER_GRPC_LISTEN": f"127.0.0.1:{port}"}, lambda _: f"grpc://127.0.0.1:{port}"
    elif kind == "amqp":
        broker = RabbitMq(folder / "broker")
        broker.start()
        try:
            yield {"MUSTER_GRPC_LISTEN": "none", "MUSTER_RABBITMQ_URL": broker.url}, lambda _: f"{broker.url}/agents"
        finally:
            broker.remove()
    else:
        yield {"MUSTER_GRPC_LISTEN": "none"}, lambda plane: plane.url


def measure(kind: str, folder: Path, sizes: Sizes) -> Figures:
    with _address(kind, folder) as (env, way), running_plane(folder, **env) as plane:
        empty_mb = plane.memory_mb()
        with running_load(kind, way(plane), sizes) as load:
            load.answer()
            saturated = _backlog(plane, load, sizes) if kind == "amqp" else _saturated(plane, load, sizes)
            load.order("pace", sizes.interval_s, sizes.interval_s)
            before_s, _ = plane.cpu_s()
            paced = load.order("pace", sizes.interval_s, sizes.paced_s)
            after_s, _ = plane.cpu_s()
            memory_mb = plane.memory_mb()
            return replace(
                saturated,
                link=kind,
                paced_cpu_percent=100 * (after_s - before_s) / paced["seconds"],
                memory_mb=memory_mb,
                memory_kb_per_node=(memory_mb - empty_mb) * 1024 / sizes.agents,
                out_of_placement_s=_silence(plane, load, sizes),
            )


def _saturated(plane: Plane, load: Load, sizes: Sizes) -> Figures:
    load.order("beat", sizes.seconds / 3)  # warm up
    before = plane.cpu_s()
    beats = load.order("beat", sizes.seconds)
    return _figures(before, plane.cpu_s(), beats["beats"], beats["seconds"])


def _backlog(plane: Plane, load: Load, sizes: Sizes) -> Figures:
    """Let the queue fill while the control plane stands still, then watch it read."""
    os.kill(plane.process.pid, signal.SIGSTOP)
    load.order("fill", sizes.backlog)
    before = plane.cpu_s()
    wanted = sizes.agents + sizes.backlog
    began_s = time.monotonic()
    os.kill(plane.process.pid, signal.SIGCONT)
    _until(lambda: plane.broker_beats() >= wanted, _ORDER_S)
    return _figures(before, plane.cpu_s(), sizes.backlog, time.monotonic() - began_s)


def _figures(before: tuple[float, float], after: tuple[float, float], beats: float, seconds: float) -> Figures:
    cpu_us, store_us = ((late - early) / beats * 1e6 for early, late in zip(before, after, strict=True))
    return Figures(link="", beats_per_s=beats / seconds, cpu_us=cpu_us, store_cpu_us=store_us)


def _silence(plane: Plane, load: Load, sizes: Sizes) -> float:
    """Return how long the slowest of those that vanished was still offered work."""
    at_s = load.order("drop", sizes.dropped)["at_s"]
    gone = [f"node-{number:04}" for number in range(sizes.dropped)]
    _until(lambda: not any(plane.takes_work(node_id) for node_id in gone), _ORDER_S)
    return time.monotonic() - at_s


def measure_memory(folder: Path, sizes: Sizes) -> Figures:
    """Run the control plane here, with agents inside it; all codecs are used all the same."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    [port] = free_ports(1)
    settings = Settings(data_dir=str(folder / "data"), listen=f"127.0.0.1:{port}", grpc_listen="none")
    return uvloop.run(_beat_inside(settings, sizes))


async def _beat_inside(settings: Settings, sizes: Sizes) -> Figures:
    def no_progress(_: str, __: float | None) -> None: ...

    plane = ControlPlane(settings, (), no_progress)
    await plane.start()
    assert plane.link is not None
    messages = [heartbeat(f"node-{number:04}", sizes.interval_s) for number in range(sizes.agents)]
    me, beats, seq = psutil.Process(), 0, messages[0].seq
    store_before_s = _children_s(me)
    began_s, before_s = time.monotonic(), sum(me.cpu_times()[:2])
    while time.monotonic() < began_s + sizes.seconds:
        seq += 1
        for message in messages:
            await plane.link.heartbeat(replace(message, seq=seq))
            beats += 1
            if beats % 20 == 0:
                await asyncio.sleep(0)
    seconds = time.monotonic() - began_s
    before, after = (before_s, store_before_s), (sum(me.cpu_times()[:2]), _children_s(me))
    await plane.stop()
    return replace(_figures(before, after, beats, seconds), link="memory")


def _children_s(process: psutil.Process) -> float:
    return float(sum(sum(child.cpu_times()[:2]) for child in process.children(recursive=True)))


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


_COLUMNS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("link", lambda f: f.link),
    ("heartbeats/s", lambda f: f"{f.beats_per_s:,.0f}"),
    ("CPU us", lambda f: f"{f.cpu_us:.0f}"),
    ("a core's/s", lambda f: f"{1e6 / f.cpu_us:,.0f}"),
    ("store us", lambda f: f"{f.store_cpu_us:.0f}"),
    ("paced CPU %", lambda f: _shown(f.paced_cpu_percent, ".1f")),
    ("memory MB", lambda f: _shown(f.memory_mb, ".0f")),
    ("KB/node", lambda f: _shown(f.memory_kb_per_node, ".0f")),
    ("out after s", lambda f: _shown(f.out_of_placement_s, ".1f")),
)


def show(rows: list[Figures]) -> None:
    table = [[title for title, _ in _COLUMNS], *([cell(row) for _, cell in _COLUMNS] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
    for row in table:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.links", description="Measure the links.")
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see whether it works")
    parser.add_argument("--only", default=",".join(_KINDS), help=f"some of {', '.join(_KINDS)}, with commas")
    arguments = parser.parse_args()
    sizes = _QUICK if arguments.quick else _FULL
    print(
        f"\nLinks: {sizes.agents} agents with 8 GPUs and 8 workers; paced: each beats every {sizes.interval_s:g} s\n"
        "CPU us: the control plane's for one heartbeat at saturation\n"
        f"out after s: from the death of {sizes.dropped} of them until the last takes no new work\n"
    )
    rows = []
    for kind in arguments.only.split(","):
        with tempfile.TemporaryDirectory(prefix="mst-") as place:
            rows.append(measure_memory(Path(place), sizes) if kind == "memory" else measure(kind, Path(place), sizes))
    show(rows)


if __name__ == "__main__":
    main()
