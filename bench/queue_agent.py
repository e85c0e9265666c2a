"""The agent's own worker at the queue, with the control plane's job service in its process.

`python -m bench.queue_agent URL SLOTS FILE`: as a node of `muster up` has them, only that the connector does nothing.
"""

import asyncio
import os
import sys
from typing import Any

import uvloop
from bench.queue_worker import ABLE

from muster.agent.jobs.offer import Offer, Tool
from muster.agent.jobs.worker import Worker
from muster.app.logs import configure_logs
from muster.control.jobs.service import JobService, JobStores
from muster.domain.job import ClaimedJob
from muster.domain.service import Service, ServiceStatus
from muster.ids import NodeId
from muster.jobs.retry import RetryPolicy
from muster.ports import JobFiles, ReportProgress
from muster.stores.valkey import ValkeyStore
from muster.system import SystemClock, system_rng


class NoWork:
    name = "llm"
    provides = ("llm",)
    needs_service = False

    def __init__(self, hits: str) -> None:
        self._file = os.open(hits, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def probe(self, url: str) -> Service:
        return Service(name=self.name, connector=self.name, status=ServiceStatus.RUNNING, url=url)

    def check(self, payload: Any) -> None:
        """Take anything."""

    def schema(self) -> dict[str, Any]:
        return {}

    async def run(self, job: ClaimedJob, service: Service | None, report: ReportProgress, files: JobFiles) -> Any:  # noqa: ARG002 - the port's
        os.write(self._file, b".")
        return {"ok": True}


async def work(url: str, slots: int, hits: str) -> None:
    configure_logs("error")
    clock, rng = SystemClock(), system_rng()
    store = await ValkeyStore.open(url, call_timeout_s=30)
    jobs = JobService(
        JobStores(queue=store.jobs, index=store.jobs, upkeep=store.jobs, lines=store.jobs),
        store.bus,
        clock,
        rng,
        lease_s=15.0,
        retry_policy=RetryPolicy(),
        payload_bytes_max=1_048_576,
        payload_checks={},
    )
    await jobs.start()
    worker = Worker(NodeId("bench"), 0, jobs, clock, rng, slots=slots)
    worker.offer(Offer(capability=ABLE, tools={"llm": (Tool(NoWork(hits)),)}))
    await worker.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(work(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
