from typing import Any

from bench.peers.work import RESULTS, URL, AsyncQueue, hit, main
from saq import Queue as SaqQueue

queue = SaqQueue.from_url(URL, max_concurrent_ops=100)


async def noop(_: Any) -> bool:
    hit()
    return True


settings = {"queue": queue, "functions": [noop], "concurrency": 100}


class Saq(AsyncQueue):
    async def open(self) -> None:
        await queue.connect()

    async def submit(self) -> None:
        await queue.enqueue("noop", ttl=600 if RESULTS else -1)

    async def submit_and_wait(self) -> None:
        job = await queue.enqueue("noop", ttl=600)
        await job.refresh(until_complete=2)


if __name__ == "__main__":
    main(Saq())
