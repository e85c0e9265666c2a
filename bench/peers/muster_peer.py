from bench.peers.work import URL, AsyncQueue, main
from bench.queue_worker import spec

from muster.stores.valkey import ValkeyStore

PER_CALL = 250
SIGNATURES = 10  # of what jobs require, in blocks of as many as follow
BLOCK = 50


class Muster(AsyncQueue):
    """The calls that the control plane makes; every job has requirements, a state and events."""

    store: ValkeyStore
    count = 0

    async def open(self) -> None:
        self.store = await ValkeyStore.open(URL, call_timeout_s=30)

    async def submit(self) -> None:
        self.count += 1
        await self.store.jobs.submit([spec(self.count, self.count // BLOCK % SIGNATURES)])

    async def submit_many(self, count: int) -> None:
        for first in range(0, count, PER_CALL):
            numbers = range(self.count + first + 1, self.count + 1 + min(count, first + PER_CALL))
            await self.store.jobs.submit([spec(n, n // BLOCK % SIGNATURES) for n in numbers])

    async def submit_and_wait(self) -> None:
        at = await self.store.log.newest_id()
        self.count += 1
        job = spec(self.count)
        await self.store.jobs.submit([job])
        ended = False
        while not ended:
            entries = await self.store.log.read(at, 100, wait_s=20)
            at = entries[-1].id
            ended = any(entry.event.kind == "job_completed" for entry in entries)
        await self.store.jobs.get([job.job_id])


if __name__ == "__main__":
    main(Muster())
