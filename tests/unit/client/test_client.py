"""The client without asyncio."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from muster.client import Client, JobFailed, NewJob
from muster.errors import JobNotFound
from tests.made_server import MadeServer, Said, Talk
from tests.unit.client.test_following import DONE, JOB, finish


@pytest.fixture
def client(made: MadeServer) -> Iterator[Client]:
    made.talks_as(finish)
    with Client(made.url, token="", give_up_after_s=5.0) as client:
        yield client


class Batches:
    """Takes batches: the ids are the payloads."""

    def __init__(self, made: MadeServer, sizes: list[int]) -> None:
        numbers = iter(range(sum(sizes)))
        replies = [Said({"jobs": [{"job_id": f"job-{next(numbers)}"} for _ in range(size)]}) for size in sizes]
        made.on("POST", "/api/jobs/batch", *replies)


def test_jobs_are_read_and_acted_on(made: MadeServer, client: Client) -> None:
    made.on("POST", "/api/jobs", Said({"job": JOB}, 201))
    made.on("GET", "/api/jobs/job-1", Said({"job": JOB}))
    made.on("GET", "/api/jobs/job-1/explain", Said({"explanation": {"summary": "why"}}))
    made.on("POST", "/api/jobs/job-1/cancel", Said({"job": JOB | {"status": "cancelled"}}))
    made.on("POST", "/api/jobs/job-1/retry", Said({"job": JOB}))
    made.on("POST", "/api/jobs/batch", Said({"jobs": [{"job_id": "a"}]}))
    made.on("GET", "/api/jobs", Said({"jobs": [JOB], "next_cursor": "c"}), Said({"jobs": [JOB], "next_cursor": None}))
    assert client.submit("simulation").job_id == "job-1"
    assert client.submit_many([NewJob("simulation")]) == ["a"]
    assert client.get("job-1").status == "pending"
    assert client.explain("job-1") == {"summary": "why"}
    assert client.cancel("job-1").status == "cancelled"
    assert client.retry("job-1").status == "pending"
    assert len(list(client.jobs())) == 2
    made.on("GET", "/api/jobs/x", Said(JobNotFound("no").to_dict(), 404))
    with pytest.raises(JobNotFound):
        client.get("x")


def test_waits_block_until_the_end(made: MadeServer, client: Client) -> None:
    made.on("POST", "/api/jobs", Said({"job": JOB}, 201))
    assert client.wait("job-1", 10).ok
    assert client.result("job-1", 10) == "job-1"
    assert client.run("simulation", wait_s=10) == "job-1"
    assert [job.job_id for job in client.wait_all(["a", "b"], 10)] == ["a", "b"]
    assert {job.job_id for job in client.as_completed(["a", "b"], 10)} == {"a", "b"}
    assert [job.status for job in client.stream("job-1", 10)] == ["completed"]
    assert len(made.talks) == 1


def test_many_are_mapped_and_their_source_is_read_by_the_callers_own_thread(made: MadeServer, client: Client) -> None:
    Batches(made, [4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    readers = set()

    def payloads() -> Iterator[int]:
        for number in range(4):
            readers.add(threading.current_thread())
            yield number

    assert list(client.map("simulation", payloads(), in_flight=4, wait_s=10)) == [f"job-{n}" for n in range(4)]
    assert readers == {threading.current_thread()}


def test_a_source_that_breaks_breaks_the_map(made: MadeServer, client: Client) -> None:
    with pytest.raises(ZeroDivisionError):
        list(client.map("simulation", (1 // number for number in range(3))))


def test_the_first_failure_ends_a_map(made: MadeServer, client: Client) -> None:
    Batches(made, [2])

    async def fails(talk: Talk) -> None:
        await talk.greet()
        for job_id in (await talk.hear())["job_ids"]:
            await talk.complete(DONE | {"job_id": job_id, "status": "failed", "error": {"code": "c", "message": "m"}})
        await talk.rest()

    made.talks_as(fails)
    with pytest.raises(JobFailed, match="is failed: m"):
        list(client.map("simulation", [1, 2], wait_s=10))


def test_an_iterator_may_be_left_early(made: MadeServer, client: Client) -> None:
    stream = client.as_completed(["a", "b"], 10)
    next(stream)
    del stream
    assert client.wait("c", 10).ok


def test_threads_share_one_connection(made: MadeServer, client: Client) -> None:
    ended: list[Any] = []
    threads = [threading.Thread(target=lambda n=n: ended.append(client.wait(f"job-{n}", 10))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(ended) == 8
    assert len(made.talks) == 1


def test_a_closed_client_says_so_and_leaves_no_thread(made: MadeServer) -> None:
    made.on("GET", "/api/jobs/job-1", Said({"job": JOB}))
    client = Client(made.url, token="")
    client.get("job-1")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.get("job-1")
    assert not [thread for thread in threading.enumerate() if thread.name == "muster-client"]


def test_a_client_that_was_never_used_is_closed_without_ado() -> None:
    Client("http://localhost:1", token="").close()
