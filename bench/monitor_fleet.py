"""A fleet that works, in one process: thin agents over HTTP whose figures change and whose workers run jobs.

python -m bench.monitor_fleet URL NODES WORKERS WORKING INTERVAL_S ; `WORKING` of the nodes take jobs. It prints "ready"
when all have registered, and goes on until its standard input ends.
"""

import asyncio
import contextlib
import random
import sys

import aiohttp
import uvloop
from msgspec import structs

from muster.domain.capability import Capability
from muster.domain.gpu import Gpu
from muster.domain.job import ClaimedJob, Progress, encode_result
from muster.domain.model import Model
from muster.domain.node import NodeFacts, Resources
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.errors import MusterError
from muster.ids import JobId, NodeId, SessionId, worker_id
from muster.links.http.agent_side import HttpLink
from muster.wire import (
    ClaimRequest,
    Heartbeat,
    OpenSession,
    Outcome,
    OutcomeKind,
    ProgressReport,
    ProgressReports,
)

JOB_KIND = "simulation"
_CARD = "NVIDIA GeForce RTX 4090"
_MEMORY_MB = 24_564
_MODELS = ("llama3.1:8b", "qwen2.5:14b", "flux1-dev")
_CLAIM_WAIT_S = 10.0
_STEPS = 4
_STEP_S = 0.5
_AGAIN_S = 1.0


class ThinNode:
    def __init__(self, number: int, workers: int, link: HttpLink, interval_s: float) -> None:
        self._rng = random.Random(number)
        self.node_id = NodeId(f"node-{number:04}")
        self._facts = NodeFacts(
            node_id=self.node_id,
            node_type="gpu-worker",
            hostname=f"{self.node_id}.lan",
            pool=("images", "llm", "spot")[number % 3],
            labels={"rack": f"r{number // 20}"},
            cpu_cores=64,
        )
        self._link = link
        self._interval_s = interval_s
        self._seq = 0
        self.jobs: list[JobId | None] = [None] * workers
        self._ended = [0] * workers
        self._service = Service(
            name="llama",
            connector="llamacpp",
            status=ServiceStatus.RUNNING,
            url="http://127.0.0.1:8000",
            dialects=(Dialect.OPENAI,),
            models=tuple(Model(name=name, resident=True) for name in _MODELS),
            slots=4,
        )

    async def beat(self) -> None:
        self._seq += 1
        await self._link.heartbeat(self._heartbeat())

    def _heartbeat(self) -> Heartbeat:
        chance = self._rng
        return Heartbeat(
            facts=self._facts,
            boot_id=f"{self.node_id}-boot",
            seq=self._seq,
            heartbeat_interval_s=self._interval_s,
            resources=Resources(
                memory_total_mb=515_000,
                memory_used_mb=chance.randrange(90_000, 400_000),
                cpu_percent=round(chance.uniform(1, 95), 1),
            ),
            gpus=tuple(self._gpu(index) for index in range(len(self.jobs))),
            workers=tuple(self._worker(index) for index in range(len(self.jobs))),
            services=(structs.replace(self._service, slots_busy=chance.randrange(5)),),
        )

    def _gpu(self, index: int) -> Gpu:
        busy = self.jobs[index] is not None
        return Gpu(
            index=index,
            name=_CARD,
            memory_total_mb=_MEMORY_MB,
            memory_used_mb=self._rng.randrange(12_000, 24_000) if busy else self._rng.randrange(400, 9_000),
            utilization_percent=float(self._rng.randrange(70, 101) if busy else self._rng.randrange(10)),
            temperature_c=float(self._rng.randrange(35, 80)),
            power_w=float(self._rng.randrange(60, 440)),
        )

    def _worker(self, index: int) -> Worker:
        job = self.jobs[index]
        return Worker(
            worker_id=worker_id(self.node_id, index),
            index=index,
            status=WorkerStatus.IDLE if job is None else WorkerStatus.BUSY,
            gpu_index=index,
            connectors=(JOB_KIND,),
            current_jobs=() if job is None else (job,),
            jobs_completed=self._ended[index],
        )

    async def live(self, first_s: float) -> None:
        await asyncio.sleep(first_s)
        while True:
            with contextlib.suppress(MusterError):
                await self.beat()
            await asyncio.sleep(self._interval_s)

    async def work(self, index: int) -> None:
        """Take one job after another, as long as there is a control plane that gives some."""
        worker = worker_id(self.node_id, index)
        session = SessionId(f"{worker}-session")
        opening = OpenSession(
            node_id=self.node_id,
            worker_id=worker,
            session_id=session,
            capability=Capability(services=(JOB_KIND,), models=_MODELS),
        )
        done: tuple[Outcome, ...] = ()
        known = False
        while True:
            try:
                if not known:
                    await self._link.open_session(opening)
                reply = await self._link.claim(
                    ClaimRequest(session_id=session, worker_id=worker, want=1, done=done, wait_s=_CLAIM_WAIT_S)
                )
                known, done = reply.session_known, ()
                for job in reply.jobs:
                    done = (await self._run(job, session, index),)
            except MusterError:
                known = False
                await asyncio.sleep(_AGAIN_S)

    async def _run(self, job: ClaimedJob, session: SessionId, index: int) -> Outcome:
        job_id = job.spec.job_id
        self.jobs[index] = job_id
        try:
            for step in range(_STEPS):
                progress = Progress(fraction=step / _STEPS, message=f"step {step} of {_STEPS}")
                report = ProgressReport(job_id=job_id, attempt=job.attempt, progress=progress)
                await self._link.report_progress(ProgressReports(session_id=session, reports=(report,)))
                await asyncio.sleep(_STEP_S * self._rng.uniform(0.5, 1.5))
        finally:
            self.jobs[index] = None
        self._ended[index] += 1
        return Outcome(
            job_id=job_id, attempt=job.attempt, kind=OutcomeKind.COMPLETED, result=encode_result({"steps": _STEPS})
        )


async def main(url: str, nodes: int, workers: int, working: int, interval_s: float) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        link = HttpLink(url, session, timeout_s=30.0)
        fleet = [ThinNode(number, workers, link, interval_s) for number in range(nodes)]
        for node in fleet:
            await node.beat()
        living = [node.live(interval_s * number / nodes) for number, node in enumerate(fleet)]
        living += [node.work(index) for node in fleet[:working] for index in range(workers)]
        tasks = [asyncio.create_task(life) for life in living]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    url, *counts, interval = sys.argv[1:]
    uvloop.run(main(url, int(counts[0]), int(counts[1]), int(counts[2]), float(interval)))
