"""Telemetry of one node: what a heartbeat's figures cost the agent, with workers by the ten and by the hundred.

    python -m bench telemetry            the table
    python -m bench telemetry --quick    the same with fewer rounds, to see whether it works

Each worker is a service with a process of its own that uses a GPU; whose it is, is found in the real /proc. GPUs are
read from a helper process over its pipe, as on a real node, but it answers at once: what a driver takes is not ours.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import uvloop
from msgspec import json

from muster.agent.board import Entry, ServiceBoard
from muster.agent.config import AgentConfig
from muster.agent.gpus.gpus import Gpus
from muster.agent.jobs.crew import Crew
from muster.agent.outbox import Outbox
from muster.agent.report.sampler import NodeState, Sampler
from muster.agent.surroundings import Surroundings
from muster.app.logs import configure_logs
from muster.devices.host import PsutilHost
from muster.devices.machine_gpus import MachineGpus
from muster.devices.nvml import NvmlProbe
from muster.devices.nvml_helper import Answer
from muster.devices.simulated import SimulatedGpus
from muster.domain.gpu import Gpu, GpuOwner
from muster.domain.model import Model
from muster.domain.node import NodeFacts
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.ids import NodeId
from muster.ports import JobLink
from muster.system import SystemClock
from muster.wire import encode

_GPUS = 8
_SLEEPER = "import sys; sys.stdin.read()"
_HELPER = """
import sys
answer = open(sys.argv[1], "rb").read()
for _ in sys.stdin.buffer:
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
"""


@contextmanager
def processes(count: int) -> Iterator[list[int]]:
    """Run so many that do nothing: as services they are, started in a session of their own."""
    running = [
        subprocess.Popen([sys.executable, "-S", "-c", _SLEEPER], stdin=subprocess.PIPE, start_new_session=True)
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


async def sweep(workers: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="mst-") as folder, processes(workers) as pids:
        answer = Path(folder) / "answer"
        answer.write_bytes(answer_of(pids))
        nvml = NvmlProbe(command=[sys.executable, "-S", "-c", _HELPER, str(answer)], is_there=lambda: True)
        probe = MachineGpus(nvml)
        try:
            sampler = await _sampler(probe, pids, Path(folder))
            took_ms, cpu_s = [], time.process_time()
            for _ in range(rounds):
                began_s = time.perf_counter()
                beat = await sampler.sample()
                took_ms.append((time.perf_counter() - began_s) * 1e3)
            cpu_ms = (time.process_time() - cpu_s) * 1e3 / rounds
            took_ms.sort()
            assert sum(len(gpu.owners or ()) for gpu in beat.gpus) == workers, "every process has its service"
            kilobytes = len(encode(beat)) / 1024
            print(
                f"{workers:>4} workers  p50 {took_ms[rounds // 2]:6.2f} ms  p99 {took_ms[rounds * 99 // 100]:6.2f} ms"
                f"  CPU {cpu_ms:6.2f} ms  heartbeat {kilobytes:5.1f} KB"
            )
        finally:
            await probe.close()


async def _sampler(probe: MachineGpus, pids: Sequence[int], folder: Path) -> Sampler:
    clock, rng = SystemClock(), random.Random(1)
    board, outbox = ServiceBoard(), Outbox(NodeId("bench"), clock)
    for number, pid in enumerate(pids):
        service = service_of(number, pid)
        board.put(Entry(service=service, public_url=service.url))
    gpus = Gpus(probe, SimulatedGpus, None, clock, outbox.add, board.services)
    await gpus.take_stock()
    around = Surroundings(
        address="10.0.0.7", connectors={}, board=board, outbox=outbox, clock=clock, rng=rng, look_every_s=5.0
    )
    state = NodeState(NodeFacts(node_id=NodeId("bench")))
    host = PsutilHost(folder)
    no_link = cast("JobLink", None)  # the crew is never started
    crew = Crew(AgentConfig(node_id=NodeId("bench")), no_link, gpus, host, 8, around, lambda: None)
    return Sampler(state, "boot", 10.0, host, gpus, board, crew)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.telemetry", description="Measure a node's telemetry.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, to see whether it works")
    rounds = 20 if parser.parse_args().quick else 500
    configure_logs("warning")
    print(f"\nTelemetry: one sample of everything, {_GPUS} GPUs, in the agent\n")
    for workers in (10, 100):
        uvloop.run(sweep(workers, rounds))


if __name__ == "__main__":
    main()
