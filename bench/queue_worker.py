"""One worker process at the queue, as small as it can be: `python -m bench.queue_worker URL BATCH FILE`."""

import asyncio
import contextlib
import os
import sys
from functools import cache
from typing import Any

import uvloop

from muster.domain.capability import Capability
from muster.domain.job import ClaimedJob, Hardware, JobSpec, JobStatus, Requirements, Settlement, encode_result
from muster.ids import JobId, SessionId, WorkerId
from muster.stores.valkey import ValkeyStore

_LEASE_S = 15.0
_PAYLOAD = {"messages": [{"role": "user", "content": "x" * 100}], "max_tokens": 128}
ABLE = Capability(services=("llm",), models=tuple(f"m{number}" for number in range(1000)), gpu_memory_gb=80)


@cache
def _requirements(signature: int, gb: int) -> Requirements:
    """Return what jobs of a kind have in common, which a program says once."""
    return Requirements(models=(f"m{signature}",), hardware=Hardware(gpu_memory_gb=gb))


def spec(number: int, signature: int = 0, *, prefix: str = "", gb: int = 8, **fields: Any) -> JobSpec:
    return JobSpec(
        job_id=JobId(f"job-{prefix}{number:012}"),
        service_required="llm",
        payload=_PAYLOAD,
        requirements=_requirements(signature, gb),
        **fields,
    )


async def work(url: str, batch: int, hits: str) -> None:
    """Claim, run, and finish with the next claim; wait for a wake-up when nothing is there."""
    store = await ValkeyStore.open(url, call_timeout_s=30)
    session, worker = SessionId("bench"), WorkerId("bench-worker-0")
    await store.jobs.open_session(session, worker, ABLE, _LEASE_S)
    file = os.open(hits, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    woken = asyncio.Event()

    async def listen() -> None:
        async for _ in store.bus.subscribe("wake"):
            woken.set()

    async def run(job: ClaimedJob) -> Settlement:
        os.write(file, b".")
        return Settlement(
            job_id=job.spec.job_id, attempt=job.attempt, status=JobStatus.COMPLETED, result=encode_result({"ok": True})
        )

    listening = asyncio.create_task(listen())
    done: list[Settlement] = []
    while not listening.done():
        woken.clear()
        claimed = await store.jobs.claim(session, worker, batch, done, lease_s=_LEASE_S, mark_idle=True)
        done = [await run(job) for job in claimed.jobs]
        if not done:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await woken.wait()
    await listening


if __name__ == "__main__":
    uvloop.run(work(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
