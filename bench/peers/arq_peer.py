import logging
from typing import Any

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker, func
from bench.peers.work import RESULTS, URL, AsyncQueue, hit, main

SERVER = RedisSettings.from_dsn(URL)


async def noop(_: dict[str, Any]) -> bool:
    hit()
    return True


class Arq(AsyncQueue):
    pool: ArqRedis

    async def open(self) -> None:
        self.pool = await create_pool(SERVER)

    async def submit(self) -> None:
        await self.pool.enqueue_job("noop")

    async def submit_and_wait(self) -> None:
        job = await self.pool.enqueue_job("noop")
        await job.result(timeout=20, poll_delay=0.002)


def work() -> None:
    """Poll every 10 ms: by default it is half a second, which makes every latency that long."""
    import asyncio  # noqa: PLC0415 - the worker alone sets up its loop by hand

    import uvloop  # noqa: PLC0415 - as above

    logging.disable(logging.INFO)
    asyncio.set_event_loop(uvloop.new_event_loop())
    noop_job = func(noop, name="noop", keep_result=3600 if RESULTS else 0)
    Worker(functions=[noop_job], redis_settings=SERVER, max_jobs=100, poll_delay=0.01).run()


if __name__ == "__main__":
    main(Arq(), work)
