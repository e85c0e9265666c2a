import dramatiq
from bench.peers.work import RESULTS, URL, Queue, hit, main
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends.redis import RedisBackend

broker = RedisBroker(url=URL)
if RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)


def _noop() -> bool | None:
    hit()
    return True if RESULTS else None


noop = dramatiq.actor(_noop, actor_name="noop", **({"store_results": True} if RESULTS else {}))


class Dramatiq(Queue):
    def submit(self) -> None:
        noop.send()

    def submit_many(self, count: int) -> None:
        dramatiq.group(noop.message() for _ in range(count)).run()

    def submit_and_wait(self) -> None:
        noop.send().get_result(block=True, timeout=20_000)


if __name__ == "__main__":
    main(Dramatiq())
