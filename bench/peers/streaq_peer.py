from bench.peers.work import PER_CALL, RESULTS, URL, AsyncQueue, hit, main
from streaq import Worker

worker = Worker(redis_url=URL, concurrency=100, anyio_kwargs={"use_uvloop": True})


@worker.task(ttl=300 if RESULTS else 0, silent=True, name="noop")
async def noop() -> bool:
    hit()
    return True


class Streaq(AsyncQueue):
    async def open(self) -> None:
        await worker.__aenter__()  # the process ends before it would be left

    async def submit(self) -> None:
        await noop.enqueue()

    async def submit_many(self, count: int) -> None:
        for first in range(0, count, PER_CALL):
            await worker.enqueue_many([noop.enqueue() for _ in range(min(PER_CALL, count - first))])

    async def submit_and_wait(self) -> None:
        task = await noop.enqueue()
        await task.result(20)


if __name__ == "__main__":
    main(Streaq())
