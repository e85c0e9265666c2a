from bench.peers.work import PER_CALL, RESULTS, URL, Queue, main
from redis import Redis
from rq import Queue as RqQueue

queue = RqQueue("default", connection=Redis.from_url(URL))
KEPT = {"result_ttl": 500 if RESULTS else 0}


class Rq(Queue):
    def submit(self) -> None:
        queue.enqueue("bench.peers.rq_jobs.noop", **KEPT)

    def submit_many(self, count: int) -> None:
        for first in range(0, count, PER_CALL):
            many = min(PER_CALL, count - first)
            queue.enqueue_many([RqQueue.prepare_data("bench.peers.rq_jobs.noop", **KEPT) for _ in range(many)])

    def submit_and_wait(self) -> None:
        queue.enqueue("bench.peers.rq_jobs.noop", **KEPT).latest_result(timeout=20)


if __name__ == "__main__":
    main(Rq())
