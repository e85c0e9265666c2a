from bench.peers.work import RESULTS, URL, Queue, hit, main
from huey import RedisHuey

huey = RedisHuey("bench", url=URL, results=RESULTS, store_none=RESULTS)


@huey.task(name="noop")
def noop() -> bool:
    hit()
    return True


class HueyQueue(Queue):
    def submit(self) -> None:
        noop()

    def submit_and_wait(self) -> None:
        noop().get(blocking=True, timeout=20, backoff=1, max_delay=0.002)


if __name__ == "__main__":  # a task's name has its module's, which must be the same in the consumer
    from bench.peers import huey_peer

    main(huey_peer.HueyQueue())
