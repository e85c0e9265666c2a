from bench.peers.work import RESULTS, URL, AsyncQueue, hit, main
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

broker = RedisStreamBroker(URL)  # its list broker has no acknowledgement: a worker that dies loses jobs
if RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=600))


@broker.task(task_name="noop")
async def noop() -> bool:
    hit()
    return True


class Taskiq(AsyncQueue):
    async def open(self) -> None:
        await broker.startup()

    async def submit(self) -> None:
        await noop.kiq()

    async def submit_and_wait(self) -> None:
        task = await noop.kiq()
        await task.wait_result(check_interval=0.002, timeout=20)


if __name__ == "__main__":
    main(Taskiq())
