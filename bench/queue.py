# ruff: noqa: A005 - nobody imports it by its bare name
"""The job queue measured alone: no-op jobs, one worker process, every feature on.

    python -m bench.queue                 the table of jobs a second, and what one claim costs the server
    python -m bench.queue --quick         the same with fewer jobs, to see whether it works
    python -m bench.queue --server redis  Debian's redis-server in place of the embedded Valkey
    python -m bench.queue --aof everysec  one setting of the append-only file: off, everysec or always
    python -m bench.queue --pending 1000000 --only claim
    python -m bench.queue --peers         beside other queues on Debian's redis-server; writes the page of the docs
    python -m bench.queue --peers saq rq  beside some of them

A job appends one byte to a file, so that the jobs done can be counted from outside. The worker claims as workers do:
one call for "these are done, give me more". Figures are from this machine and this moment; compare only what was
measured together.
"""

import argparse
import asyncio
import contextlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import uvloop
from bench import queue_page, queue_peers
from bench.queue_worker import ABLE, spec
from msgspec import Struct, structs

from muster.domain.job import JobStatus, Settlement, encode_result
from muster.ids import SessionId, WorkerId
from muster.stores.embedded import embedded_binary
from muster.stores.valkey import ValkeyStore

_BULK = 250
_BATCHES = (1, 16, 64)
_CLAIMS_IN_A_ROW = 10
_AOF = ("off", "everysec", "always")


class Sizes(Struct, frozen=True):
    jobs: int
    latencies: int
    pending: tuple[int, ...]
    signatures: tuple[int, ...]
    claims: int


_FULL = Sizes(jobs=20_000, latencies=500, pending=(1_000, 100_000), signatures=(1, 100, 1000), claims=200)
_LARGE = Sizes(
    jobs=20_000,
    latencies=200,
    pending=(1_000, 10_000, 100_000, 1_000_000),
    signatures=(1, 100, 1000),
    claims=200,
)
_QUICK = Sizes(jobs=2_000, latencies=50, pending=(1_000,), signatures=(1, 10), claims=20)


# --- the server -------------------------------------------------------------------------------------------------------


class Server:
    """A server process of its own in a temporary folder."""

    def __init__(self, kind: str, aof: str) -> None:
        binary = shutil.which("redis-server") if kind == "redis" else str(embedded_binary())
        if binary is None:
            raise SystemExit("redis-server is missing: sudo apt-get install -y --no-install-recommends redis-server")
        self.folder = Path(tempfile.mkdtemp(prefix="mst-"))
        self.url = f"unix://{self.folder}/s"
        options = ["--port", "0", "--unixsocket", f"{self.folder}/s", "--dir", str(self.folder), "--save", ""]
        if aof != "off":
            options += ["--appendonly", "yes", "--appendfsync", aof]
        self.process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)


@contextlib.asynccontextmanager
async def fresh_store(kind: str, aof: str) -> AsyncIterator[tuple[Server, ValkeyStore]]:
    server = Server(kind, aof)
    try:
        store = await ValkeyStore.open(server.url, call_timeout_s=30)
        try:
            yield server, store
        finally:
            await store.close()
    finally:
        server.stop()


# --- the worker, a process of its own ---------------------------------------------------------------------------------


@contextlib.contextmanager
def worker_process(url: str, batch: int, hits: Path) -> Iterator[psutil.Process]:
    command = [sys.executable, "-m", "bench.queue_worker", url, str(batch), str(hits)]
    process = subprocess.Popen(command)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


# --- jobs a second ----------------------------------------------------------------------------------------------------


class Drained(Struct, frozen=True):
    jobs_per_s: float
    cpu_us_per_job: float
    server_cpu_us_per_job: float
    memory_mb: float


async def enqueue(store: ValkeyStore, jobs: int, bulk: int) -> float:
    """Submit `bulk` at a time; return how many a second."""
    specs = [spec(number, number // 50 % 10) for number in range(jobs)]
    start = time.perf_counter()
    for first in range(0, jobs, bulk):
        await store.jobs.submit(specs[first : first + bulk])
    return jobs / (time.perf_counter() - start)


async def drain(server: Server, store: ValkeyStore, jobs: int, batch: int) -> Drained:
    """Time one worker process from a tenth of the jobs to all of them: its start is no part of the work."""
    hits = server.folder / f"hits-{batch}"
    hits.touch()
    served = psutil.Process(server.process.pid)
    with worker_process(server.url, batch, hits) as worker:
        await until(lambda: hits.stat().st_size >= jobs // 10)
        start, ran, cpu_s, served_s = time.perf_counter(), hits.stat().st_size, cpu_of(worker), cpu_of(served)
        await until(lambda: hits.stat().st_size >= jobs)
        seconds, counted = time.perf_counter() - start, jobs - ran
        drained = Drained(
            jobs_per_s=counted / seconds,
            cpu_us_per_job=(cpu_of(worker) - cpu_s) / counted * 1e6,
            server_cpu_us_per_job=(cpu_of(served) - served_s) / counted * 1e6,
            memory_mb=worker.memory_full_info().pss / 2**20,
        )
        await until_completed(store, jobs)  # the last batch is told with the next claim: the worker must see it
        return drained


async def latencies_ms(server: Server, store: ValkeyStore, count: int) -> list[float]:
    """Submit one job to an idle worker and wait for its result, told by the log; return the times, sorted."""
    hits = server.folder / "hits-latency"
    found = []
    with worker_process(server.url, 1, hits):
        for number in range(-20, count):  # the first ones warm up
            at = await store.log.newest_id()
            job = spec(number + 20, prefix="latency-")
            start = time.perf_counter()
            await store.jobs.submit([job])
            ended = False
            while not ended:
                entries = await store.log.read(at, 100, wait_s=20)
                at = entries[-1].id
                ended = any(entry.event.kind == "job_completed" for entry in entries)
            await store.jobs.get([job.job_id])
            if number >= 0:
                found.append((time.perf_counter() - start) * 1000)
    return sorted(found)


async def table(kind: str, aofs: tuple[str, ...], sizes: Sizes) -> list[str]:
    heads = (
        "append-only file",
        "enqueue/s one by one / bulk",
        "jobs at a time",
        "drain/s",
        "worker CPU µs/job",
        "server CPU µs/job",
        "worker MB",
        "idle latency ms p50 / p99",
    )
    lines = [shown(f"| {' | '.join(heads)} |"), shown(f"{'|---' * len(heads)}|")]
    for aof in aofs:
        for batch in _BATCHES:
            async with fresh_store(kind, aof) as (server, store):
                one = await enqueue(store, sizes.jobs, 1) if batch == 1 else None
                bulk = await enqueue(store, sizes.jobs, _BULK) if batch != 1 else None
                drained = await drain(server, store, sizes.jobs, batch)
                times = await latencies_ms(server, store, sizes.latencies) if batch == 1 else []
            rate = f"{one:,.0f} / -" if one else f"- / {bulk:,.0f}"
            latency = f"{statistics.median(times):.2f} / {times[int(len(times) * 0.99)]:.2f}" if times else "-"
            cells = [
                aof,
                rate,
                str(batch),
                f"{drained.jobs_per_s:,.0f}",
                f"{drained.cpu_us_per_job:.1f}",
                f"{drained.server_cpu_us_per_job:.1f}",
                f"{drained.memory_mb:.0f}",
                latency,
            ]
            lines.append(shown(f"| {' | '.join(cells)} |"))
    return lines


# --- what one claim costs ---------------------------------------------------------------------------------------------


async def claim_costs(kind: str, sizes: Sizes) -> list[str]:
    heads = "| waiting | signatures | in front, not runnable | bytes/job | claim of 1, server µs | of 16 | of 64 |"
    lines = [shown(f"\n{heads}").strip(), shown("|---|---|---|---|---|---|---|")]
    cases = [(pending, signatures, 0) for pending in sizes.pending for signatures in sizes.signatures]
    cases.append((sizes.pending[-1], sizes.signatures[-1], sizes.pending[-1]))
    for pending, signatures, blocked in cases:
        async with fresh_store(kind, "off") as (_, store):
            await store.jobs.open_session(SessionId("bench"), WorkerId("bench-worker-0"), ABLE, 3600)
            before = await memory_of(store)
            for first in range(0, pending, 1000):
                await store.jobs.submit([spec(n, n % signatures) for n in range(first, min(pending, first + 1000))])
            per_job = (await memory_of(store) - before) / pending
            for first in range(0, blocked, 1000):
                await store.jobs.submit(
                    [spec(n, gb=640, priority=100, prefix="large-") for n in range(first, first + 1000)]
                )
            costs = [await claim_cost(store, batch, signatures, sizes.claims) for batch in _BATCHES]
        cells = " | ".join(f"{cost:.0f}" for cost in costs)
        lines.append(shown(f"| {pending:,} | {signatures:,} | {blocked:,} | {per_job:.0f} | {cells} |"))
    return lines


async def claim_cost(store: ValkeyStore, batch: int, signatures: int, claims: int) -> float:
    """Return microseconds in the server for one claim that also ends the claim before; what it takes is replaced."""
    session, worker = SessionId("bench"), WorkerId("bench-worker-0")
    done: list[Settlement] = []
    costs = []
    for row in range(claims // _CLAIMS_IN_A_ROW):
        before = await function_us(store)
        for _ in range(_CLAIMS_IN_A_ROW):
            claimed = await store.jobs.claim(session, worker, batch, done, lease_s=3600)
            done = [
                Settlement(job_id=job.spec.job_id, attempt=1, status=JobStatus.COMPLETED, result=encode_result(row))
                for job in claimed.jobs
            ]
        costs.append((await function_us(store) - before) / _CLAIMS_IN_A_ROW)
        taken = _CLAIMS_IN_A_ROW * batch
        fresh = range(row * taken, (row + 1) * taken)
        await store.jobs.submit([spec(n, n % signatures, prefix=f"fresh-{batch}-") for n in fresh])
    await store.jobs.claim(session, worker, 0, done, lease_s=3600)
    return statistics.median(costs)


async def function_us(store: ValkeyStore) -> float:
    return await figure(store, "commandstats", rb"cmdstat_fcall:calls=\d+,usec=(\d+)")


async def memory_of(store: ValkeyStore) -> float:
    return await figure(store, "memory", rb"used_memory:(\d+)")


async def figure(store: ValkeyStore, section: str, pattern: bytes) -> float:
    found = re.search(pattern, await store.server.execute("INFO", section))
    return float(found.group(1)) if found else 0.0


# --- small things -----------------------------------------------------------------------------------------------------


def shown(line: str) -> str:
    print(line, flush=True)
    return line


def cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def until(check: Callable[[], bool], timeout_s: float = 300) -> None:
    async with asyncio.timeout(timeout_s):
        while not check():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.003)


async def until_completed(store: ValkeyStore, jobs: int) -> None:
    """Make sure that every job ended, not only ran."""
    async with asyncio.timeout(30):
        while (await store.jobs.counts())[JobStatus.COMPLETED] < jobs:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.queue", description="Measure the job queue.")
    parser.add_argument("--quick", action="store_true", help="fewer jobs, to see whether it works")
    parser.add_argument("--server", choices=("valkey", "redis"), default="valkey")
    parser.add_argument("--aof", choices=_AOF, help="one setting of the append-only file (default: all)")
    parser.add_argument("--only", choices=("table", "claim"), help="one of the two tables")
    parser.add_argument("--pending", type=int, help="how many jobs wait in the table of claims")
    parser.add_argument("--peers", nargs="*", metavar="NAME", help="beside other queues: all, or those that are named")
    parser.add_argument("--repetitions", type=int, default=3, help="of all peers (default: 3)")
    parser.add_argument("--share", type=float, default=1.0, help="of the jobs that each peer gets (default: 1)")
    arguments = parser.parse_args()
    if arguments.peers is not None:
        beside_others(arguments)
        return
    sizes = _QUICK if arguments.quick else _FULL
    if arguments.pending:
        sizes = structs.replace(sizes, pending=(arguments.pending,))
    aofs = (arguments.aof,) if arguments.aof else _AOF
    print(f"\nJob queue: {sizes.jobs:,} no-op jobs, one worker process, results kept, server {arguments.server}\n")
    if arguments.only != "claim":
        uvloop.run(table(arguments.server, aofs, sizes))
    if arguments.only != "table":
        uvloop.run(claim_costs(arguments.server, sizes))


def beside_others(arguments: argparse.Namespace) -> None:
    """Measure all on one Redis, then Muster by append-only file and by backlog; a full run writes the page."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # servers and workers are stopped with it
    quick, names = arguments.quick, [name.lower() for name in arguments.peers]
    sizes = _QUICK if quick else _LARGE
    outcome = queue_peers.run(
        names,
        repetitions=1 if quick else arguments.repetitions,
        share=0.1 if quick else arguments.share,
        latencies=sizes.latencies,
    )
    tables = {"ratios": [shown(line) for line in queue_page.ratios_table(outcome)]}
    print()
    tables["peers"] = [shown(line) for line in queue_page.peers_table(outcome)]
    print()
    tables["aof"] = uvloop.run(table("redis", _AOF, sizes))
    tables["claims"] = uvloop.run(claim_costs("redis", sizes))
    if not quick and not names:
        print(f"\nwritten: {queue_page.write(outcome, tables)}")


if __name__ == "__main__":
    main()
