"""Placement and admission of tasks: a fleet of a thousand nodes, a thousand tasks a second, each placed and stored.

    python -m bench.tasks            the table: how long a choice takes, and a task until it is admitted
    python -m bench.tasks --quick    the same in a few seconds, to see whether it works

Tasks come at fixed times whatever became of those before, so that waiting counts. The store is an embedded Valkey with
its append-only file written every second; nothing speaks HTTP. Figures are from this machine and this moment.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from msgspec import Struct

from muster.app.logs import configure_logs
from muster.control.fleet.fleet import Fleet
from muster.control.jobs.service import JobService, JobStores
from muster.control.jobs.tasks import TaskDesk
from muster.control.recorder import Recorder
from muster.domain.job import JobSpec, Requirements
from muster.domain.model import Model
from muster.domain.node import NodeFacts, Phase
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.gateway.routing.route import Router
from muster.ids import JobId, NodeId
from muster.jobs.retry import RetryPolicy
from muster.placement.scores import Strategy
from muster.placement.wish import Wish
from muster.registry.book import NodeBook
from muster.registry.lateness import Limits
from muster.stores.embedded import EmbeddedValkey
from muster.stores.valkey import ValkeyStore
from muster.system import SystemClock, system_rng
from muster.wire import Heartbeat

_MODELS = 50
_HEARTBEATS_PER_S = 100  # a thousand nodes, each every ten seconds


class Sizes(Struct, frozen=True):
    nodes: int
    tasks_per_s: int
    seconds: float
    choices: int


_FULL = Sizes(nodes=1000, tasks_per_s=1000, seconds=10.0, choices=200)
_QUICK = Sizes(nodes=100, tasks_per_s=200, seconds=1.0, choices=20)


class Bench:
    def __init__(self, store: ValkeyStore, sizes: Sizes) -> None:
        clock, rng = SystemClock(), system_rng()
        self.sizes = sizes
        self.clock = clock
        self.fleet = Fleet(NodeBook(Limits()), Recorder(store.nodes, store.log), clock)
        self.router = Router(self.fleet, strategy=Strategy.LEAST_LOADED, rng=rng, clock=clock)
        self.jobs = JobService(
            JobStores(queue=store.jobs, index=store.jobs, upkeep=store.jobs, lines=store.jobs),
            store.bus,
            clock,
            rng,
            lease_s=15.0,
            retry_policy=RetryPolicy(),
            payload_bytes_max=1_048_576,
            payload_checks={},
        )
        self.desk = TaskDesk(self.jobs, self.fleet, waiting_max=1_000_000)
        for node in range(sizes.nodes):
            self.beat(node, seq=1)

    def beat(self, number: int, seq: int) -> None:
        service = Service(
            name="pool-0",
            connector="openai",
            status=ServiceStatus.RUNNING,
            url=f"http://10.0.{number // 250}.{number % 250}:8000",
            dialects=(Dialect.OPENAI,),
            models=tuple(Model(name=f"m{(number + offset) % _MODELS}") for offset in range(3)),
            slots=4,
            slots_busy=seq % 4,
        )
        message = Heartbeat(
            facts=NodeFacts(node_id=NodeId(f"node-{number}")),
            boot_id="boot",
            seq=seq,
            heartbeat_interval_s=10.0,
            phase=Phase.READY,
            services=(service,),
        )
        self.fleet.carry_out(self.fleet.book.heard(message, "v2", self.clock.now_ms()).effects)

    def choices_us(self) -> list[float]:
        """Time whole decisions, with the reasons for every worker that is passed over."""
        taken = []
        for number in range(self.sizes.choices):
            began_s = time.perf_counter()
            self.router.decide(Wish(model=f"m{number % _MODELS}"))
            taken.append((time.perf_counter() - began_s) * 1e6)
        return taken

    def reservations_us(self) -> list[float]:
        """Time what a request costs while nobody has reported since the last one for this model."""
        taken = []
        for number in range(self.sizes.choices * 10):
            began_s = time.perf_counter()
            candidate = self.router.reserve(f"m{number % _MODELS}", "completion", frozenset(Dialect))
            taken.append((time.perf_counter() - began_s) * 1e6)
            if candidate is not None:
                self.router.release(candidate)
        return taken

    async def admissions_ms(self) -> list[float]:
        loop = asyncio.get_running_loop()
        every_s = 1 / self.sizes.tasks_per_s
        taken: list[float] = []

        async def one(number: int, due_s: float) -> None:
            model = f"m{number % _MODELS}"
            candidate = self.router.reserve(model, "completion", frozenset(Dialect))
            if candidate is not None:
                self.router.release(candidate)
            await self.desk.admit(
                JobSpec(
                    job_id=JobId(f"task-{number}"),
                    service_required="openai",
                    payload={"prompt": "hello", "max_tokens": 64},
                    requirements=Requirements(models=(model,)),
                )
            )
            taken.append((loop.time() - due_s) * 1e3)

        beats = asyncio.create_task(self._keep_beating())
        began_s = loop.time()
        async with asyncio.TaskGroup() as group:
            for number in range(round(self.sizes.seconds * self.sizes.tasks_per_s)):
                due_s = began_s + number * every_s
                if (wait_s := due_s - loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                group.create_task(one(number, due_s))
        beats.cancel()
        await asyncio.gather(beats, return_exceptions=True)
        return taken

    async def _keep_beating(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(1 / _HEARTBEATS_PER_S)
            number += 1
            self.beat(number % self.sizes.nodes, seq=2 + number)


async def run(sizes: Sizes) -> None:
    with tempfile.TemporaryDirectory(prefix="mst-") as folder:
        server = EmbeddedValkey(Path(folder))
        await server.start()
        try:
            store = await ValkeyStore.open(server.url, result_bytes_max=1_048_576, event_log_entries_max=100_000)
            bench = Bench(store, sizes)
            print(f"one choice among {sizes.nodes:,} workers, all reasons  {told(bench.choices_us(), 'µs')}")
            print(f"one reservation, fleet unchanged                {told(bench.reservations_us(), 'µs')}")
            cpu_s = time.process_time()
            admitted = await bench.admissions_ms()
            cpu_us = (time.process_time() - cpu_s) * 1e6 / len(admitted)
            print(f"placed and admitted, {sizes.tasks_per_s:,} a second           {told(admitted, 'ms')}")
            print(f"CPU of this process                             {cpu_us:13.0f} µs a task, heartbeats included")
            await store.close()
        finally:
            await server.stop()


def told(figures: Sequence[float], unit: str) -> str:
    found = sorted(figures)
    at = {share: found[min(len(found) - 1, int(len(found) * share / 100))] for share in (50, 95, 99)}
    return "  ".join(f"p{share} {value:9.2f} {unit}" for share, value in at.items()) + f"  of {len(found):,}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tasks", description="Measure placement and admission.")
    parser.add_argument("--quick", action="store_true", help="fewer of everything, to see whether it works")
    sizes = _QUICK if parser.parse_args().quick else _FULL
    configure_logs("warning")
    print(f"\nTasks: {sizes.nodes:,} nodes, {sizes.tasks_per_s:,} tasks a second for {sizes.seconds:g} s\n")
    uvloop.run(run(sizes))


if __name__ == "__main__":
    main()
