"""A thousand people who look at once: what it costs the control plane to tell them, and how soon they know."""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from bench.monitor_load import Read
from bench.processes import cpu_of_tree, free_port, memory_mb_of_tree
from bench.queue import Server
from msgspec import Struct

_START_S = 60.0
_STOP_S = 30.0
_ANSWER_S = 120.0


class Plane(Struct, frozen=True):
    """A `muster server` of its own with its store outside."""

    url: str
    port: int
    store_url: str
    process: psutil.Process

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=_ANSWER_S) as answer:
            body: bytes = answer.read()
        return body

    def figure(self, name: str) -> float:
        """Return one of its metrics that has no labels."""
        lines = self.get("/metrics").decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


@contextmanager
def plane(extra: Mapping[str, str] | None = None) -> Iterator[Plane]:
    with ExitStack() as stack:
        store = Server("valkey", "off")
        stack.callback(store.stop)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mst-")))
        port = free_port()
        env = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
        env |= {
            "MUSTER_LISTEN": f"127.0.0.1:{port}",
            "MUSTER_GRPC_LISTEN": "none",
            "MUSTER_DATA_DIR": str(folder),
            "MUSTER_VALKEY_URL": store.url,
            "MUSTER_LOG_LEVEL": "error",
            **(extra or {}),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "muster.cli.main", "server"], env=env, stdout=subprocess.DEVNULL
        )
        stack.callback(process.wait, _STOP_S)
        stack.callback(process.terminate)
        started = Plane(f"http://127.0.0.1:{port}", port, store.url, psutil.Process(process.pid))
        _until_up(started)
        yield started


def _until_up(started: Plane) -> None:
    deadline_s = time.monotonic() + _START_S
    while True:
        try:
            started.get("/health")
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)
        else:
            return


class FanOut(Struct, frozen=True, kw_only=True):
    readers: int
    events_per_s: float
    told: int
    cores: float
    memory_mb: float
    bytes_per_event: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    dropped: int  # events that a reader did not get
    resynced: int
    ended: int


def fan_out(readers: int, events_per_s: float, seconds: float) -> FanOut:
    with plane() as started:
        load = [sys.executable, "-m", "bench.monitor_load"]
        reading = subprocess.Popen(
            [*load, "read", str(started.port), str(readers)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert reading.stdin is not None
        assert reading.stdout is not None
        try:
            if reading.stdout.readline() != "ready\n":
                raise RuntimeError("the readers did not come together")
            gaps, cpu_s, began_s = _gaps(started), cpu_of_tree(started.process), time.monotonic()
            telling = [*load, "tell", started.store_url, str(events_per_s), str(seconds)]
            told = int(subprocess.run(telling, check=True, capture_output=True, text=True).stdout)
            cores = (cpu_of_tree(started.process) - cpu_s) / (time.monotonic() - began_s)
            time.sleep(1.0)  # the last ones are on their way
            memory_mb, resynced = memory_mb_of_tree(started.process), round(_gaps(started) - gaps)
            found = Read(**json.loads(reading.communicate("", timeout=_STOP_S)[0]))
        finally:
            reading.kill()
            reading.wait()
    return FanOut(
        readers=readers,
        events_per_s=events_per_s,
        told=told,
        cores=cores,
        memory_mb=memory_mb,
        bytes_per_event=found.bytes_read / max(1, sum(found.events)),
        p50_ms=found.p50_ms,
        p99_ms=found.p99_ms,
        max_ms=found.max_ms,
        dropped=sum(max(0, told - events) for events in found.events),
        resynced=resynced,
        ended=found.ended,
    )


def _gaps(started: Plane) -> float:
    return started.figure("muster_event_gaps_total")
