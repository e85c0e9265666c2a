"""The engines behind a gateway and the load in front of it, both of gateway_tools.c, and programs run between them."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from bench.processes import cpu_of_tree, memory_mb_of_tree, stop_tree
from msgspec import Struct

_SOURCE = Path(__file__).parent / "gateway_tools.c"
_ENGINES = 4
_LISTENS_S = 20.0
_TOOL_S = 30.0  # beyond the time that it is told to go on
_LET_GO_S = 10.0
_LOOK_S = 0.002


class Load(Struct, frozen=True):
    """What the load generator prints."""

    done: int
    events: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float
    left_at_us: int


class Loaded(Struct, frozen=True, kw_only=True):
    """What the program took for it, with its children, and what it had at the end of it."""

    load: Load
    cpu_s: float
    memory_mb: float


class LoadFailed(Exception):
    pass


class Engines:
    """Fake engines that run, and the load that is sent to one port or another."""

    def __init__(self, binary: Path, ports: Sequence[int]) -> None:
        self._binary = binary
        self.ports = tuple(ports)

    def load(
        self,
        mode: str,
        port: int,
        connections: int,
        seconds: float,
        model: str,
        *,
        warm_s: float = 0.3,
        headers: Sequence[str] = (),
        process: psutil.Process | None = None,
    ) -> Loaded:
        """Send it, and see what `process` takes meanwhile; raise LoadFailed when one request was not answered well."""
        words = [mode, str(port), str(connections), str(warm_s), str(seconds), model, *headers]
        tool = subprocess.Popen(
            on_core(1, [str(self._binary), *words]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        late = threading.Timer(warm_s + seconds + _TOOL_S, tool.kill)
        late.start()
        try:
            assert tool.stdout is not None
            tool.stdout.readline()
            before_s = cpu_of_tree(process) if process else 0.0
            line = tool.stdout.readline()
            spent_s = cpu_of_tree(process) - before_s if process else 0.0
            memory_mb = memory_mb_of_tree(process) if process else 0.0
        finally:
            tool.communicate("\n")
            late.cancel()
        if not line:
            raise LoadFailed("the load could not be sent")
        load = Load(**json.loads(line))
        if load.failed:
            raise LoadFailed(f"{load.failed} of {load.failed + load.done} requests were answered wrongly")
        if not load.done and not load.events:
            raise LoadFailed("nothing was answered")
        return Loaded(load=load, cpu_s=spent_s, memory_mb=memory_mb)

    def let_go_at_us(self) -> float | None:
        """Wait until no engine streams to anybody; return when that was by the tools' clock, None: not soon."""
        deadline = time.monotonic() + _LET_GO_S
        while sum(_stats(port)["streams"] for port in self.ports):
            if time.monotonic() > deadline:
                return None
            time.sleep(_LOOK_S)
        return time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6


def _stats(port: int) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=5) as answer:
        stats: dict[str, int] = json.loads(answer.read())
        return stats


@contextlib.contextmanager
def engines(folder: Path) -> Iterator[Engines]:
    binary = folder / "gateway_tools"
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("the gateway benchmark needs a C compiler: install gcc (apt-get install gcc) and run it again")
    subprocess.run([compiler, "-O2", "-o", str(binary), str(_SOURCE)], check=True)
    ports = free_ports(_ENGINES)
    with contextlib.ExitStack() as started:
        for port in ports:
            process = started.enter_context(running(on_core(1, [str(binary), "serve", str(port)])))
            until_listening(port, process)
        yield Engines(binary, ports)


@contextlib.contextmanager
def running(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, folder: Path | None = None, log: Path | None = None
) -> Iterator[psutil.Popen]:
    """Have it run in a session of its own, which ends with it."""
    with contextlib.ExitStack() as opened:
        out = opened.enter_context(log.open("ab")) if log else subprocess.DEVNULL
        process = psutil.Popen(
            command,
            env={**os.environ, **(env or {})},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            stop_tree(process, signal.SIGTERM)


def until_listening(port: int, process: psutil.Popen) -> None:
    deadline = time.monotonic() + _LISTENS_S
    while not _listens(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise LoadFailed("it did not start")
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def on_core(core: int, command: Sequence[str]) -> list[str]:
    """With two cores or more, the gateway has the first for itself and the tools have the second."""
    pin = shutil.which("taskset")
    return [pin, "-c", str(core), *command] if pin and (os.cpu_count() or 1) > 1 else list(command)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
