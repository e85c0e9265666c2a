"""Telemetry of one node: what it costs the agent to look at its workers, what it sends, and when people see it.

    python -m bench telemetry            the table
    python -m bench telemetry --quick    the same with fewer rounds, to see whether it works

Each worker is a service with a process of its own that uses a GPU; whose it is, is found in the real /proc. GPUs are
read from a helper process over its pipe, as on a real node, but it answers at once: what a driver takes is not ours.
For the way to people's eyes a worker is started for each round: from the tick that finds it, over HTTP to a control
plane in a process of its own, until a reader of the stream has its event.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import aiohttp
import uvloop
from bench.processes import free_port
from msgspec import Struct, json

from muster.agent.board import Entry, ServiceBoard
from muster.agent.config import AgentConfig
from muster.agent.gpus.gpus import Gpus
from muster.agent.jobs.crew import Crew
from muster.agent.outbox import Outbox
from muster.agent.report.hive import HiveReport
from muster.agent.report.sampler import NodeState, Sampler
from muster.agent.services.figures import ProcessMonitor, Watched
from muster.agent.surroundings import Surroundings
from muster.app.logs import configure_logs
from muster.devices.host import PsutilHost
from muster.devices.machine_gpus import MachineGpus
from muster.devices.nvml import NvmlProbe
from muster.devices.nvml_helper import Answer
from muster.devices.simulated import SimulatedGpus
from muster.domain.gpu import Gpu, GpuOwner
from muster.domain.model import Model
from muster.domain.node import NodeFacts, Phase
from muster.domain.process import ProcessFigures
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.ids import NodeId
from muster.links.http.queen import HttpQueen
from muster.ports import JobLink
from muster.system import SystemClock
from muster.wire import Heartbeat, encode
from muster.wire.packing import packed

_GPUS = 8
_NODE = NodeId("bench")
_START_S = 30.0
_SLEEPER = "import sys; sys.stdin.read()"
_HELPER = """
import sys
answer = open(sys.argv[1], "rb").read()
for _ in sys.stdin.buffer:
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
"""


class Line(Struct, frozen=True):
    """A figure beside what it should be at most."""

    what: str
    figure: float
    target: float | None
    unit: str

    def __str__(self) -> str:
        target = "" if self.target is None else f"≤ {self.target:g} {self.unit}"
        verdict = "" if self.target is None else "yes" if self.figure <= self.target else "NO"
        return f"{self.what:<46}{self.figure:>9.2f} {self.unit:<4}{target:>12}  {verdict}"


@contextmanager
def processes(count: int) -> Iterator[list[int]]:
    """Run so many that do nothing: as services they are, started in a session of their own."""
    running = [
        subprocess.Popen(
            [sys.executable, "-S", "-c", _SLEEPER, "--model", "m"], stdin=subprocess.PIPE, start_new_session=True
        )
        for _ in range(count)
    ]
    try:
        yield [process.pid for process in running]
    finally:
        for process in running:
            process.communicate()


def answer_of(pids: Sequence[int]) -> bytes:
    """All GPUs with all figures, each used by its share of the processes."""
    gpus = tuple(
        Gpu(
            index=index,
            name="NVIDIA RTX 4090",
            uuid=f"GPU-5e0cb3c2-0000-0000-0000-{index:012}",
            pci=f"00000000:{index:02x}:00.0",
            driver="550.54.14",
            memory_total_mb=24_564,
            memory_used_mb=12_000,
            utilization_percent=37.0,
            temperature_c=61.0,
            power_w=123.456,
            power_limit_w=450.0,
            clock_mhz=2520,
            throttled=(),
            owners=tuple(
                GpuOwner(name="python3", pids=(pid,), memory_mb=900, utilization_percent=3.0)
                for pid in pids[index::_GPUS]
            ),
        )
        for index in range(_GPUS)
    )
    return json.encode(Answer(gpus)) + b"\n"


def service_of(number: int, pid: int) -> Service:
    return Service(
        name=f"llama-gpu{number % _GPUS}-{number}",
        connector="llamacpp",
        status=ServiceStatus.RUNNING,
        url=f"http://10.0.0.7:{20_000 + number}",
        dialects=(Dialect.OPENAI,),
        models=(Model(name="llama-3.1-8b-instruct", resident=True, size_bytes=4_900_000_000),),
        slots=4,
        slots_busy=2,
        managed=True,
        pid=pid,
        gpu_index=number % _GPUS,
    )


class Node:
    """The half of an agent that looks and tells."""

    def __init__(self, folder: Path, pids: Sequence[int]) -> None:
        self._answer = folder / "answer"
        self._pids = list(pids)
        self._answer.write_bytes(answer_of(self._pids))
        nvml = NvmlProbe(command=[sys.executable, "-S", "-c", _HELPER, str(self._answer)], is_there=lambda: True)
        self.probe = MachineGpus(nvml)
        clock, rng = SystemClock(), random.Random(1)
        self._board, outbox = ServiceBoard(), Outbox(_NODE, clock)
        for number, pid in enumerate(pids):
            self._put(service_of(number, pid))
        self._monitor = ProcessMonitor()
        self._board.measured_by(self._measured)
        self._gpus = Gpus(self.probe, SimulatedGpus, None, clock, outbox.add, self._board.services)
        around = Surroundings(
            address="10.0.0.7",
            connectors={},
            board=self._board,
            outbox=outbox,
            clock=clock,
            rng=rng,
            look_every_s=5.0,
        )
        host = PsutilHost(folder)
        no_link = cast("JobLink", None)  # the crew is never started
        crew = Crew(AgentConfig(node_id=_NODE), no_link, self._gpus, host, 8, around, lambda: None)
        state = NodeState(NodeFacts(node_id=_NODE), Phase.CONFIGURING)
        self.sampler = Sampler(state, "boot", 10.0, host, self._gpus, self._board, crew)
        self.outbox = outbox

    async def _measured(self) -> tuple[ProcessFigures, ...]:
        """Read of them in a thread, as the supervisor does."""
        watched = [
            Watched(name=service.name, group="llama", pid=service.pid)
            for service in self._board.services()
            if service.pid is not None
        ]
        return await asyncio.to_thread(self._monitor.read, watched)

    async def take_stock(self) -> None:
        await self._gpus.take_stock()

    def spawned(self, pid: int) -> None:
        """Have the process of the first worker replaced by this one."""
        self._pids[0] = pid
        self._answer.write_bytes(answer_of(self._pids))
        self._put(service_of(0, pid))

    def _put(self, service: Service) -> None:
        self._board.put(Entry(service=service, public_url=service.url))


async def collection(workers: int, rounds: int, target_ms: float) -> list[Line]:
    """Measure a sample of everything."""
    with tempfile.TemporaryDirectory(prefix="mst-") as folder, processes(workers) as pids:
        node = Node(Path(folder), pids)
        try:
            await node.take_stock()
            await node.sampler.sample()  # who uses which GPU is traced once
            took_ms, cpu_s = [], time.process_time()
            for _ in range(rounds):
                began_s = time.perf_counter()
                beat = await node.sampler.sample()
                took_ms.append((time.perf_counter() - began_s) * 1e3)
            cpu_ms = (time.process_time() - cpu_s) * 1e3 / rounds
            assert sum(len(gpu.owners or ()) for gpu in beat.gpus) == workers, "every process has its service"
            return [
                Line(f"{workers} workers looked at, p50", _quantile(took_ms, 0.5), target_ms, "ms"),
                Line(f"{workers} workers looked at, p99", _quantile(took_ms, 0.99), None, "ms"),
                Line(f"{workers} workers looked at, CPU of the agent", cpu_ms, None, "ms"),
                *_sizes(beat, workers),
            ]
        finally:
            await node.probe.close()


def _sizes(beat: Heartbeat, workers: int) -> Iterator[Line]:
    yield Line(f"heartbeat of {workers} workers", len(encode(packed(beat))) / 1024, 25.0, "KB")
    yield Line("the same told at length (older control planes)", len(encode(beat)) / 1024, None, "KB")


async def seen(workers: int, rounds: int) -> list[Line]:
    """Measure the way from the tick that finds a new worker to the eyes of a reader."""
    with (
        tempfile.TemporaryDirectory(prefix="mst-") as folder,
        control_plane(Path(folder)) as url,
        processes(workers) as pids,
        processes(rounds) as spawned,
    ):
        node = Node(Path(folder), pids)
        clock = SystemClock()
        async with aiohttp.ClientSession() as session:
            try:
                await _until_up(session, url)
                await node.take_stock()
                await node.sampler.sample()  # who uses which GPU is traced once
                queen = HttpQueen(url, session)
                report = HiveReport(
                    node.sampler.hive, node.sampler.hive_workers, queen.send, node.outbox.add, clock, interval_s=1.0
                )
                await report.report()
                async with session.get(f"{url}/v1/heartbeats/stream") as stream:
                    took_ms = [await _round(node, report, stream, pid) for pid in spawned]
            finally:
                await node.probe.close()
    return [
        Line(f"tick to reader among {workers} workers, p50", _quantile(took_ms, 0.5), None, "ms"),
        Line(f"tick to reader among {workers} workers, p99", _quantile(took_ms, 0.99), 100.0, "ms"),
    ]


async def _round(node: Node, report: HiveReport, stream: aiohttp.ClientResponse, pid: int) -> float:
    node.spawned(pid)
    wanted = f'"pid":{pid},'.encode()
    began_s = time.perf_counter()
    telling = asyncio.create_task(report.report())
    async with asyncio.timeout(_START_S):
        while wanted not in await stream.content.readline():
            pass
    took_ms = (time.perf_counter() - began_s) * 1e3
    await telling
    return took_ms


@contextmanager
def control_plane(folder: Path) -> Iterator[str]:
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    env |= {
        "MUSTER_LISTEN": f"127.0.0.1:{port}",
        "MUSTER_GRPC_LISTEN": "none",
        "MUSTER_DATA_DIR": str(folder / "plane"),
        "MUSTER_LOG_LEVEL": "error",
    }
    process = subprocess.Popen([sys.executable, "-m", "muster.cli.main", "server"], env=env, stdout=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(_START_S)


async def _until_up(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(_START_S):
        while True:
            try:
                async with session.get(f"{url}/health"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


def _quantile(figures: Sequence[float], share: float) -> float:
    return sorted(figures)[min(len(figures) - 1, int(len(figures) * share))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.telemetry", description="Measure a node's telemetry.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, to see whether it works")
    quick = parser.parse_args().quick
    configure_logs("warning")
    print(f"\nTelemetry of a node with {_GPUS} GPUs{'':<20}figure      target  held\n")
    for workers, target_ms in ((10, 1.0), (100, 10.0)):
        for line in uvloop.run(collection(workers, 20 if quick else 500, target_ms)):
            print(line)
    for line in uvloop.run(seen(100, 10 if quick else 200)):
        print(line)


if __name__ == "__main__":
    main()
