"""Muster's queue beside others, in one run: `python -m bench queue --peers [NAME…]`.

The same work for each: no-op jobs, one worker process, the same Redis on the loopback. Repetitions go round all of
them, so that a slow minute of the machine hits each alike. Every peer has a virtual environment of its own under
.cache/bench, made when it is first needed.
"""

import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from bench import environments
from bench.environments import CACHE, ROOT, programs_of
from bench.processes import cpu_of_tree, free_port, memory_mb_of_tree, stop_tree
from msgspec import Struct, field

ADAPTERS = ROOT / "bench" / "peers"
_FASTER = ("hiredis==3.5.0", "uvloop==0.23.0")  # what makes Python libraries of this kind faster, as Muster has it too
_PHASE_S = 180
_START_S = 10
_SETTLE_S = 2.5  # a worker has started and waits for jobs


class Peer(Struct, frozen=True, kw_only=True):
    """`worker` are the words that start it, `{python}` and `{bin}` being those of its environment.

    `jobs` are as many as it does in some seconds: slower ones get fewer, so that all take about as long.
    """

    name: str
    setting: str
    jobs: int
    adapter: str
    worker: tuple[str, ...]
    packages: tuple[str, ...] = ()
    language: str = "Python"
    modes: tuple[str, ...] = ("off", "on")  # results


def _python(name: str, setting: str, jobs: int, *packages: str, worker: str = "") -> Peer:
    words = tuple(worker.split()) or ("{python}", "-m", f"bench.peers.{name.lower()}_peer", "worker")
    return Peer(
        name=name,
        setting=setting,
        jobs=jobs,
        adapter=f"{name.lower()}_peer",
        worker=words,
        packages=packages,
    )


def _muster(batch: int, module: str = "queue_worker") -> Peer:
    real = module == "queue_agent"
    return Peer(
        name="Muster, the agent's worker" if real else f"Muster, {batch} at a time",
        setting=f"{f'{batch} slots, with the job service in its process' if real else f'claims of {batch}'};"
        " requirements, leases, states, events and cancelling always on",
        jobs=40_000 if batch > 1 else 10_000,
        adapter="muster_peer",
        worker=("{python}", "-m", f"bench.{module}", "{url}", str(batch), "{hits}"),
        modes=("on",),
    )


_CELERY = "celery -A bench.peers.celery_peer worker -l error --without-gossip --without-mingle --without-heartbeat"
PEERS = (
    _muster(64),
    _muster(16),
    _muster(1),
    _muster(64, "queue_agent"),
    Peer(
        name="BullMQ",
        setting="concurrency 100",
        jobs=40_000,
        adapter="bullmq_peer.mjs",
        worker=("node", str(ADAPTERS / "bullmq_peer.mjs"), "worker"),
        packages=("bullmq@6.7.0", "ioredis@6.0.0"),
        language="Node",
    ),
    _python(
        "taskiq",
        "Redis stream, 100 at a time",
        12_000,
        "taskiq==0.13.0",
        "taskiq-redis==1.2.4",
        worker="{bin}/taskiq worker bench.peers.taskiq_peer:broker --workers 1 --max-async-tasks 100 --max-prefetch 100"
        " --log-level ERROR",
    ),
    _python("SAQ", "concurrency 100", 10_000, "saq[redis,hiredis]==0.26.4", "typing_extensions==4.16.0",
            worker="{bin}/saq bench.peers.saq_peer.settings"),
    _python("arq", "100 at a time, polling every 10 ms instead of 500", 10_000, "arq==0.28.0"),
    _python("Huey", "8 threads", 10_000, "huey==3.5.4", "redis==8.1.0",
            worker="{bin}/huey_consumer bench.peers.huey_peer.huey -w 8 -k thread -q"),
    _python("Dramatiq", "8 threads", 6_000, "dramatiq[redis]==2.2.1",
            worker="{bin}/dramatiq bench.peers.dramatiq_peer -p 1 -t 8"),
    _python("streaQ", "concurrency 100", 6_000, "streaq==7.2.0",
            worker="{bin}/streaq run bench.peers.streaq_peer:worker"),
    _python("Celery", "solo pool, 64 prefetched", 5_000, "celery[redis]==5.7.0", worker=f"{{bin}}/{_CELERY} -P solo"),
    _python("RQ", "SimpleWorker, no fork for each job", 1_500, "rq==2.12.0",
            worker="{bin}/rq worker -q -u {url} -w rq.worker.SimpleWorker default"),
)  # fmt: skip


class Figures(Struct, kw_only=True):
    """What the repetitions gave, by name of the figure."""

    found: dict[str, list[float]] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)

    def add(self, **figures: float) -> None:
        for name, figure in figures.items():
            self.found.setdefault(name, []).append(figure)

    def median(self, name: str) -> float | None:
        return statistics.median(self.found[name]) if name in self.found else None

    def latency_ms(self, share: float) -> float | None:
        found = sorted(self.latencies_ms)
        return found[int(len(found) * share)] if found else None


class Redis:
    """The one server of the run."""

    def __init__(self, *options: str) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise SystemExit("redis-server is missing: sudo apt-get install -y --no-install-recommends redis-server")
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        self.version = next(word[2:] for word in said.split() if word.startswith("v="))
        self.folder = Path(tempfile.mkdtemp(prefix="mst-"))
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        bound = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        self.process = psutil.Popen([program, *bound, *options], stdout=subprocess.DEVNULL)
        self._wait_until_up()

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def command(self, *words: str) -> None:
        subprocess.run(["redis-cli", "-p", str(self.port), *words], check=True, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)


class Bench:
    def __init__(self, server: Redis, *, share: float, latencies: int) -> None:
        self._server = server
        self._share = share
        self._latencies = latencies
        self._hits = server.folder / "hits"
        self._log = server.folder / "worker.log"

    def measure(self, peer: Peer, figures: Figures) -> None:
        """Submit one by one and drain, in bulk and drain, then ask an idle worker."""
        for mode, how in (("off", "one"), ("on", "bulk")):
            results = mode if mode in peer.modes else "on"
            self._server.command("FLUSHALL")
            self._hits.write_bytes(b"")
            jobs = max(200, round(peer.jobs * self._share))
            figures.add(**{how: self._ask(peer, results, how, jobs)["per_s"]})
            drained = self._drain(peer, results, jobs)
            figures.add(**{f"{results} {name}": figure for name, figure in drained.items()})
        self._server.command("FLUSHALL")
        with self._worker(peer, "on"):
            time.sleep(_SETTLE_S)
            figures.latencies_ms += self._ask(peer, "on", "latency", self._latencies)["ms"]

    def _drain(self, peer: Peer, results: str, jobs: int) -> dict[str, float]:
        """Time one worker from a tenth of the jobs to all of them: its start is no part of the work."""
        with self._worker(peer, results) as worker:
            self._until_hits(jobs // 10)
            start, ran = time.perf_counter(), self._ran
            cpu_s, server_s = cpu_of_tree(worker), cpu_of_tree(self._server.process)
            self._until_hits(jobs)
            seconds, counted = time.perf_counter() - start, self._ran - ran
            return {
                "drain": counted / seconds,
                "worker_us": (cpu_of_tree(worker) - cpu_s) / counted * 1e6,
                "server_us": (cpu_of_tree(self._server.process) - server_s) / counted * 1e6,
                "worker_mb": memory_mb_of_tree(worker),
            }

    @property
    def _ran(self) -> int:
        return self._hits.stat().st_size

    def _until_hits(self, count: int) -> None:
        deadline = time.monotonic() + _PHASE_S
        while self._ran < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._ran} of {count} jobs ran in {_PHASE_S} s: {self._log.read_text()[-2000:]}")
            time.sleep(0.003)

    def _ask(self, peer: Peer, results: str, *words: object) -> dict[str, Any]:
        program = [str(_programs(peer) / "python"), "-m", f"bench.peers.{peer.adapter}"]
        if peer.language == "Node":
            program = ["node", str(ADAPTERS / peer.adapter)]
        done = subprocess.run(
            [*program, *map(str, words)],
            env=self._env(peer, results),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_PHASE_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr[-2000:]}")
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    @contextmanager
    def _worker(self, peer: Peer, results: str) -> Iterator[psutil.Process]:
        places = {"python": _programs(peer) / "python", "bin": _programs(peer)}
        words = [word.format(url=self._server.url, hits=self._hits, **places) for word in peer.worker]
        with self._log.open("wb") as log:
            worker = psutil.Popen(
                words, env=self._env(peer, results), cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield worker
        finally:
            stop_tree(worker, signal.SIGTERM)

    def _env(self, peer: Peer, results: str) -> Mapping[str, str]:
        paths = [str(ROOT)]
        if not peer.packages:  # Muster itself, wherever this process has it from
            paths += filter(None, [os.environ.get("PYTHONPATH")])
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._server.folder),
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "ignore",
            "BENCH_URL": self._server.url,
            "BENCH_RESULTS": str(int(results == "on")),
            "BENCH_HITS": str(self._hits),
            "BENCH_NODE": str(CACHE / "BullMQ"),
        }


# --- environments -----------------------------------------------------------------------------------------------------


def _programs(peer: Peer) -> Path:
    return programs_of(peer.name) if peer.packages else Path(sys.executable).parent


def install(peer: Peer) -> str | None:
    """Make the environment of a peer unless it stands; return what keeps it from being measured."""
    if not peer.packages:
        return None
    if peer.language == "Node":
        return environments.install(peer.name, peer.packages, node=True)
    return environments.install(peer.name, (*peer.packages, *_FASTER))


# --- the run ----------------------------------------------------------------------------------------------------------


class Outcome(Struct, frozen=True, kw_only=True):
    server: str
    repetitions: int
    share: float
    load: str
    crowded: bool
    figures: dict[str, Figures]
    absent: dict[str, str]


def run(names: Sequence[str], *, repetitions: int, share: float, latencies: int) -> Outcome:
    """Measure all peers, or those that are named; Muster is always among them."""
    wanted = [peer for peer in PEERS if not names or not peer.packages or peer.name.lower() in names]
    absent: dict[str, str] = {}
    for peer in wanted:
        if (problem := install(peer)) is not None:
            absent[peer.name] = problem
    figures = {peer.name: Figures() for peer in wanted if peer.name not in absent}
    server = Redis()
    loads = []
    try:
        bench = Bench(server, share=share, latencies=latencies)
        for repetition in range(repetitions):
            for peer in wanted:
                if peer.name in absent:
                    continue
                loads.append(os.getloadavg()[0])
                try:
                    bench.measure(peer, figures[peer.name])
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    absent[peer.name] = f"failed: {error}"[:300]
                rate = figures[peer.name].found.get("on drain", [0.0])[-1]
                print(f"# {repetition + 1}/{repetitions} {peer.name}: {rate:,.0f} jobs/s", file=sys.stderr, flush=True)
    finally:
        server.stop()
    crowded = statistics.median(loads) > (os.cpu_count() or 1)
    load = f"{statistics.median(loads):.1f} in the median, {max(loads):.1f} at most"
    kept = {name: found for name, found in figures.items() if name not in absent}
    return Outcome(
        server=f"Redis {server.version}",
        repetitions=repetitions,
        share=share,
        load=load,
        crowded=crowded,
        figures=kept,
        absent=absent,
    )


def machine() -> str:
    """Describe it in general words: what the figures depend on."""
    family = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        family = lines[0].partition(":")[2].strip() if lines else family
    return f"{os.cpu_count()} cores ({family}), {platform.system()}, Python {platform.python_version()}"
