"""The gateway measured alone: what it adds to a request, what a relayed event costs, how soon it lets go.

    python -m bench.gateway            the table, with nginx beside it where nginx is installed
    python -m bench.gateway --quick    the same in a few seconds, to see whether it works
    python -m bench.gateway --soak 30  no figures but for memory: so many minutes of faults, and what they leave behind

The upstream and the load come from gateway_tools.c, built on the spot, so that Python is only where Muster is. With two
cores or more the gateway has the first for itself and the tools the second. Figures are from this machine and this
moment; compare only what was measured together.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from bench import gateway_soak
from msgspec import Struct

_HERE = Path(__file__).parent
_ENGINES = 4
_READY_S = 20.0
_PACE = "mock-200x10000"  # 200 events, one every 10 ms: 100 a second and stream
_LET_GO_S = 10.0


class Sizes(Struct, frozen=True):
    seconds: float
    connections: int
    streams: int
    leaving: int


_FULL = Sizes(seconds=4.0, connections=64, streams=1000, leaving=500)
_QUICK = Sizes(seconds=1.0, connections=16, streams=100, leaving=50)


class Figures(Struct, kw_only=True):
    name: str
    requests_per_s: float
    cpu_us_per_request: float
    added_p50_ms: float
    events_per_s: float
    cpu_us_per_event: float
    delay_p99_ms: float
    memory_mb: float
    let_go_ms: float


class Load(Struct, frozen=True):
    """What the load generator prints."""

    done: int
    events: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float
    left_at_us: int


class Tools:
    """The compiled tools: fake engines that run, and load that is run."""

    def __init__(self, binary: Path, ports: list[int]) -> None:
        self._binary = binary
        self.ports = ports

    def load(self, mode: str, port: int, connections: int, seconds: float, model: str = "mock") -> Load:
        command = [str(self._binary), mode, str(port), str(connections), str(seconds), model]
        output = subprocess.run(on_core(1, command), check=True, capture_output=True, text=True).stdout
        load = Load(**json.loads(output))
        if load.failed:
            raise RuntimeError(f"{load.failed} of the requests failed: {' '.join(command)}")
        return load

    def open_streams(self) -> int:
        return sum(_stats(port)["streams"] for port in self.ports)


def _stats(port: int) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=5) as answer:
        stats: dict[str, int] = json.loads(answer.read())
        return stats


def on_core(core: int, command: list[str]) -> list[str]:
    pin = shutil.which("taskset")
    return [pin, "-c", str(core), *command] if pin and (os.cpu_count() or 1) > 1 else command


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[psutil.Process]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _READY_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"did not start: {' '.join(command)}")
            time.sleep(0.02)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def tools(directory: Path) -> Iterator[Tools]:
    binary = directory / "gateway_tools"
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("the gateway benchmark needs a C compiler: install gcc (apt-get install gcc) and run it again")
    subprocess.run([compiler, "-O2", "-o", str(binary), str(_HERE / "gateway_tools.c")], check=True)
    ports = free_ports(_ENGINES)
    with contextlib.ExitStack() as engines:
        for port in ports:
            engines.enter_context(running(on_core(1, [str(binary), "serve", str(port)]), port))
        yield Tools(binary, ports)


def cpu_s(process: psutil.Process) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))


def memory_mb(process: psutil.Process) -> float:
    """Return what the processes have for themselves, and their share of what they have in common."""
    return sum(each.memory_full_info().pss for each in (process, *process.children(recursive=True))) / 2**20


def measure(name: str, tools: Tools, port: int, process: psutil.Process, sizes: Sizes) -> Figures:
    direct = tools.load("requests", tools.ports[0], 1, sizes.seconds / 2)
    tools.load("requests", port, sizes.connections, 0.6)  # warm up
    before_s = cpu_s(process)
    many = tools.load("requests", port, sizes.connections, sizes.seconds)
    requests_s = cpu_s(process) - before_s
    one = tools.load("requests", port, 1, sizes.seconds / 2)

    before_s = cpu_s(process)
    streams = tools.load("streams", port, sizes.streams, sizes.seconds + 1, _PACE)
    streams_s = cpu_s(process) - before_s
    held_mb = memory_mb(process)
    _until_let_go(tools)

    left = tools.load("leave", port, sizes.leaving, 1.5, _PACE)
    gone_at_us = _until_let_go(tools)
    return Figures(
        name=name,
        requests_per_s=many.done / many.seconds,
        cpu_us_per_request=requests_s / many.done * 1e6,
        added_p50_ms=one.p50_ms - direct.p50_ms,
        events_per_s=streams.events / streams.seconds,
        cpu_us_per_event=streams_s / streams.events * 1e6,
        delay_p99_ms=streams.p99_ms,
        memory_mb=held_mb,
        let_go_ms=(gone_at_us - left.left_at_us) / 1000,
    )


def _until_let_go(tools: Tools) -> float:
    """Wait until no engine streams to nobody any more; return when that was, by the clock of the tools."""
    deadline = time.monotonic() + _LET_GO_S
    while tools.open_streams():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{tools.open_streams()} streams went on after their callers had left")
        time.sleep(0.002)
    return time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6


def muster(tools: Tools, sizes: Sizes) -> Figures:
    [port] = free_ports(1)
    urls = [f"http://127.0.0.1:{engine}" for engine in tools.ports]
    command = on_core(0, [sys.executable, "-m", "bench.gateway_server", str(port), *urls])
    with running(command, port) as process:
        return measure("muster", tools, port, process, sizes)


def nginx(tools: Tools, sizes: Sizes, directory: Path) -> Figures | None:
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        return None
    [port] = free_ports(1)
    engines = " ".join(f"server 127.0.0.1:{engine};" for engine in tools.ports)
    paths = "".join(
        f"{kind}_temp_path {directory}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr crit;\n"
        "worker_rlimit_nofile 16384; events { worker_connections 9000; }\n"
        f"http {{ access_log off; {paths} keepalive_requests 1000000;\n"
        f"upstream engines {{ least_conn; {engines} keepalive 2048; keepalive_requests 1000000; }}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://engines;\n"
        '  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; } } }\n'
    )
    with running(on_core(0, [binary, "-c", str(configuration)]), port) as process:
        return measure("nginx", tools, port, process, sizes)


_COLUMNS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("program", lambda f: f.name),
    ("requests/s", lambda f: f"{f.requests_per_s:,.0f}"),
    ("CPU us", lambda f: f"{f.cpu_us_per_request:.1f}"),
    ("added p50 ms", lambda f: f"{f.added_p50_ms:.3f}"),
    ("events/s", lambda f: f"{f.events_per_s:,.0f}"),
    ("CPU us", lambda f: f"{f.cpu_us_per_event:.1f}"),
    ("delay p99 ms", lambda f: f"{f.delay_p99_ms:.1f}"),
    ("memory MB", lambda f: f"{f.memory_mb:.0f}"),
    ("let go ms", lambda f: f"{f.let_go_ms:.0f}"),
)


def show(rows: list[Figures]) -> None:
    table = [[title for title, _ in _COLUMNS], *([cell(row) for _, cell in _COLUMNS] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
    for row in table:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))
    by_name = {row.name: row for row in rows}
    if "nginx" in by_name:
        ours, theirs = by_name["muster"], by_name["nginx"]
        print(
            f"\nbeside nginx: {theirs.cpu_us_per_request / ours.cpu_us_per_request:.2f} of its requests a core, "
            f"{ours.cpu_us_per_event / theirs.cpu_us_per_event:.2f} x its CPU for an event"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description="Measure the gateway.")
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see whether it works")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="faults for so long, and what they leave behind")
    arguments = parser.parse_args()
    if arguments.soak:
        sys.exit(gateway_soak.main(arguments.soak))
    sizes = _QUICK if arguments.quick else _FULL
    print(
        f"\nGateway: requests over {sizes.connections} connections; {sizes.streams} streams of 100 events/s; "
        f"{sizes.leaving} callers leaving at once\n"
    )
    with tempfile.TemporaryDirectory() as place, tools(Path(place)) as ready:
        found = [muster(ready, sizes), nginx(ready, sizes, Path(place))]
        show([row for row in found if row is not None])


if __name__ == "__main__":
    main()
