from bench.peers.work import RESULTS, URL, Queue, hit, main
from celery import Celery, group

app = Celery("celery_peer", broker=URL, backend=URL if RESULTS else None)
app.conf.update(
    broker_connection_retry_on_startup=True,
    result_expires=3600,
    task_acks_late=False,
    task_ignore_result=not RESULTS,
    worker_disable_rate_limits=True,
    worker_hijack_root_logger=False,
    worker_prefetch_multiplier=64,
)


@app.task(name="noop")
def noop() -> bool:
    hit()
    return True


class CeleryQueue(Queue):
    def submit(self) -> None:
        noop.delay()

    def submit_many(self, count: int) -> None:
        group(noop.s() for _ in range(count)).apply_async()

    def submit_and_wait(self) -> None:
        noop.delay().get(timeout=20, interval=0.005)


if __name__ == "__main__":
    main(CeleryQueue())
