"""Waits over a WebSocket that misbehaves."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from muster.client import AsyncClient, Job, Refused, Unreachable
from muster.errors import Forbidden, JobNotFound
from tests.made_server import MadeServer, Talk

JOB: dict[str, Any] = {"job_id": "job-1", "service_required": "simulation", "status": "pending"}
DONE = JOB | {"status": "completed"}


async def finish(talk: Talk) -> None:
    """Say that whatever is asked for has completed."""
    await talk.greet()
    while True:
        asked = await talk.hear()
        for job_id in asked.get("job_ids", ()) if asked["type"] == "subscribe_job" else ():
            await talk.complete(DONE | {"job_id": job_id}, result=job_id)


async def test_a_connection_that_breaks_is_taken_up_with_what_is_known(made: MadeServer, client: AsyncClient) -> None:
    heard: list[dict[str, Any]] = []

    async def breaks(talk: Talk) -> None:
        await talk.greet()
        heard.append(await talk.hear())
        await talk.update(JOB | {"status": "assigned"}, "1.assigned")

    async def ends(talk: Talk) -> None:
        await talk.greet()
        heard.append(await talk.hear())
        await talk.complete(DONE, result={"n": 1})
        await talk.rest()

    made.talks_as(breaks, ends)
    job = await client.wait("job-1", 10)
    assert job.result == {"n": 1}
    assert [(message["job_ids"], message.get("after")) for message in heard] == [
        (["job-1"], None),
        (["job-1"], {"job-1": "1.assigned"}),
    ]


async def test_the_second_of_two_ends_is_not_told(made: MadeServer, client: AsyncClient) -> None:
    async def twice(talk: Talk) -> None:
        await talk.greet()
        await talk.hear()
        await talk.complete(DONE)
        await talk.complete(DONE)
        await talk.progress("job-1", 0.5)
        await finish(talk)

    made.talks_as(twice)
    async with aclosing(client.stream("job-1", 10)) as stream:
        assert [job.status async for job in stream] == ["completed"]
    assert (await client.wait("job-2", 10)).ok


async def test_progress_is_put_to_what_is_known_of_the_job(made: MadeServer, client: AsyncClient) -> None:
    go_on = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def moves(talk: Talk) -> None:
        await talk.greet()
        await talk.hear()
        await talk.update(JOB | {"status": "assigned", "worker_id": "w"})
        await talk.progress("job-1", 0.5, "half")
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(go_on.wait(), loop))
        await talk.complete(DONE)
        await talk.rest()

    made.talks_as(moves)
    seen: list[Job] = []
    async with asyncio.timeout(10), aclosing(client.stream("job-1", 10)) as stream:
        async for job in stream:
            seen.append(job)
            if job.fraction == 0.5:
                go_on.set()
    half = next(job for job in seen if job.fraction == 0.5)
    assert (half.status, half.worker_id, half.progress and half.progress.message) == ("in_progress", "w", "half")
    assert seen[-1].ok


async def test_what_is_not_known_is_passed_over(made: MadeServer, client: AsyncClient) -> None:
    async def strange(talk: Talk) -> None:
        await talk.say("weather", sun=True)
        await talk.update(JOB | {"job_id": "another"})
        await finish(talk)

    made.talks_as(strange)
    assert (await client.wait("job-1", 10)).ok


async def test_what_cannot_be_understood_ends_the_wait(made: MadeServer, client: AsyncClient) -> None:
    async def garbled(talk: Talk) -> None:
        await talk.socket.send_str("{")
        await talk.rest()

    made.talks_as(garbled)
    with pytest.raises(Refused, match="understood"):
        await client.wait("job-1", 10)


async def test_a_job_that_is_not_there_fails_its_own_wait_only(made: MadeServer, client: AsyncClient) -> None:
    async def picky(talk: Talk) -> None:
        await talk.greet()
        while True:
            for job_id in (await talk.hear()).get("job_ids", ()):
                if job_id == "none":
                    await talk.say("error", job_id="none", error="no job", code="job_not_found", retriable=False)
                else:
                    await talk.complete(DONE | {"job_id": job_id})

    made.talks_as(picky)
    first, second = await asyncio.gather(client.wait("none", 10), client.wait("job-1", 10), return_exceptions=True)
    assert isinstance(first, JobNotFound)
    assert isinstance(second, Job)


async def test_a_request_that_is_refused_fails_the_jobs_it_was_for(made: MadeServer, client: AsyncClient) -> None:
    async def refuses(talk: Talk) -> None:
        await talk.greet()
        asked = await talk.hear()
        await talk.say("error", message_id=asked["id"], error="no", code="forbidden", retriable=False)
        await talk.rest()

    made.talks_as(refuses)
    with pytest.raises(Forbidden):
        await client.wait("job-1", 10)


async def test_what_is_refused_for_now_is_asked_for_again(made: MadeServer, client: AsyncClient) -> None:
    async def busy(talk: Talk) -> None:
        await talk.greet()
        asked = await talk.hear()
        refusal = {"error": "too often", "code": "rate_limited", "retriable": True, "retry_after_ms": 1}
        await talk.say("error", message_id=asked["id"], **refusal)
        asked = await talk.hear()
        await talk.complete(DONE | {"job_id": asked["job_ids"][0]})
        await talk.rest()

    made.talks_as(busy)
    assert (await client.wait("job-1", 10)).ok


async def test_a_closed_door_ends_all_waits(made: MadeServer, client: AsyncClient) -> None:
    async def shut(talk: Talk) -> None:
        await talk.socket.close(code=1008, message=b"this needs a token of a client")

    made.talks_as(shut)
    waits = [client.wait("job-1", 10), client.wait("job-2", 10)]
    for outcome in await asyncio.gather(*waits, return_exceptions=True):
        assert isinstance(outcome, Forbidden)
        assert "of a client" in outcome.message


async def test_a_control_plane_that_never_converses_is_given_up(made: MadeServer) -> None:
    async def leaves(talk: Talk) -> None:
        await talk.socket.close(code=1013)

    made.talks_as(leaves)
    async with AsyncClient(made.url, token="", give_up_after_s=0.2) as client:
        with pytest.raises(Unreachable):
            await client.wait("job-1", 10)
    assert len(made.talks) > 1


async def test_where_there_is_no_such_socket_the_wait_ends(made: MadeServer, client: AsyncClient) -> None:
    with pytest.raises(Refused) as refused:
        await client.wait("job-1", 10)
    assert refused.value.data["status"] == 404


async def test_no_more_is_subscribed_than_there_is_room_for(made: MadeServer, client: AsyncClient) -> None:
    most = 0

    async def narrow(talk: Talk) -> None:
        nonlocal most
        await talk.greet(room=3)
        while True:
            asked = await talk.hear()
            most = max(most, len(asked["job_ids"]))
            for job_id in asked["job_ids"]:
                await talk.complete(DONE | {"job_id": job_id})

    made.talks_as(narrow)
    job_ids = [f"job-{number}" for number in range(20)]
    assert [job.job_id for job in await client.wait_all(job_ids, 10)] == job_ids
    assert most == 3


async def test_who_stops_waiting_stops_following(made: MadeServer, client: AsyncClient) -> None:
    left = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def notes(talk: Talk) -> None:
        await talk.greet()
        while (await talk.hear())["type"] != "unsubscribe_job":
            await talk.update(JOB)
        loop.call_soon_threadsafe(left.set)
        await talk.rest()

    made.talks_as(notes)
    async with aclosing(client.stream("job-1", 10)) as stream:
        await anext(stream)
    async with asyncio.timeout(10):
        await left.wait()


async def test_a_connection_that_nobody_needs_is_closed(
    made: MadeServer, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.client.following._IDLE_S", 0.01)
    made.talks_as(finish)
    await client.wait("job-1", 10)
    task = client._following._task
    assert task is not None
    async with asyncio.timeout(10):
        await task
    assert (await client.wait("job-2", 10)).ok
    assert len(made.talks) == 2


async def test_who_waits_while_the_client_is_closed_is_told_so(made: MadeServer, client: AsyncClient) -> None:
    subscribed = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def silent(talk: Talk) -> None:
        await talk.greet()
        await talk.hear()
        loop.call_soon_threadsafe(subscribed.set)
        await talk.rest()

    made.talks_as(silent)
    waiting = asyncio.create_task(client.wait("job-1", 10))
    async with asyncio.timeout(10):
        await subscribed.wait()
        await client.close()
        with pytest.raises(Unreachable, match="closed"):
            await waiting
