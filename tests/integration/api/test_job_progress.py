"""How a job goes, as server-sent events: one end, nothing after it, and taken up again where it broke off."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from muster.domain.job import Progress
from muster.ids import JobId, SessionId
from muster.wire import Outcome, OutcomeKind, ProgressReport, ProgressReports
from tests.integration.api.conftest import Served
from tests.planes import PlaneUnderTest, running_plane


class Stream:
    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.last_id = ""

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            async for line in self.answer.content:
                if line.startswith(b"id: "):
                    self.last_id = line[4:].decode().strip()
                elif line.startswith(b"data: "):
                    return dict(json.loads(line[6:]))
        raise AssertionError("the stream has ended")

    async def rest(self) -> list[dict[str, Any]]:
        """Read to the end."""
        async with asyncio.timeout(10):
            text = (await self.answer.read()).decode()
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


@asynccontextmanager
async def stream(served: Served, job_id: str, last_id: str = "") -> AsyncIterator[Stream]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with served.client.get(f"/api/jobs/{job_id}/progress", headers=headers) as answer:
        yield Stream(answer)


def done(job_id: str, attempt: int = 1) -> Outcome:
    return Outcome(job_id=JobId(job_id), attempt=attempt, kind=OutcomeKind.COMPLETED)


async def report(plane: PlaneUnderTest, job_id: str, fraction: float, attempt: int = 1) -> None:
    moved = ProgressReport(job_id=JobId(job_id), attempt=attempt, progress=Progress(fraction=fraction))
    await plane.jobs.report_progress(ProgressReports(session_id=SessionId("s1"), reports=(moved,)))


def statuses(messages: list[dict[str, Any]]) -> list[str]:
    return [message["job"]["status"] for message in messages if message["type"] == "job_update"]


async def test_a_job_that_ended_long_ago_is_told_once_and_the_stream_ends(served: Served) -> None:
    await served.plane.open_session()
    job_id = await served.plane.submit()
    await served.plane.claim()
    await served.plane.claim(want=0, done=(done(job_id),))
    async with stream(served, job_id) as found:
        assert statuses(await found.rest()) == ["completed"]


async def test_a_job_that_ends_in_an_instant_has_one_end(served: Served) -> None:
    await served.plane.open_session()
    job_id = await served.plane.submit()
    async with stream(served, job_id) as found:
        await found.next()
        await served.plane.claim()
        await served.plane.claim(want=0, done=(done(job_id), done(job_id)))
        told = statuses(await found.rest())
    assert told.count("completed") == 1
    assert told[-1] == "completed"


async def test_lesson_a_report_that_comes_after_the_end_is_not_told(served: Served) -> None:
    await served.plane.open_session()
    job_id = await served.plane.submit()
    await served.plane.claim()
    async with stream(served, job_id) as found:
        await found.next()
        await report(served.plane, job_id, 0.5)
        await served.plane.claim(want=0, done=(done(job_id),))
        await report(served.plane, job_id, 0.9)
        messages = await found.rest()
    assert messages[-1]["job"]["status"] == "completed"


async def test_who_comes_back_in_mid_job_hears_only_what_is_new(served: Served) -> None:
    await served.plane.open_session()
    job_id = await served.plane.submit()
    await served.plane.claim()
    async with stream(served, job_id) as found:
        assert statuses([await found.next()]) == ["assigned"]
    async with stream(served, job_id, found.last_id) as again:
        await served.plane.claim(want=0, done=(done(job_id),))
        assert statuses(await again.rest()) == ["completed"]


async def test_who_comes_back_after_a_change_hears_how_it_is_now(served: Served) -> None:
    await served.plane.open_session()
    job_id = await served.plane.submit()
    async with stream(served, job_id) as found:
        await found.next()
    await served.plane.claim()
    async with stream(served, job_id, found.last_id) as again:
        assert statuses([await again.next()]) == ["assigned"]


async def test_who_has_heard_the_end_is_told_to_stop_asking(served: Served) -> None:
    job_id = await served.plane.submit()
    await served.plane.jobs.cancel(job_id)
    async with stream(served, job_id) as found:
        assert statuses([await found.next()]) == ["cancelled"]
    async with stream(served, job_id, found.last_id) as again:
        assert again.answer.status == 204
        assert await again.answer.read() == b""


async def test_a_job_that_was_tried_again_is_followed_anew(served: Served) -> None:
    job_id = await served.plane.submit()
    await served.plane.jobs.cancel(job_id)
    async with stream(served, job_id) as found:
        await found.next()
    await served.plane.jobs.retry(job_id)
    async with stream(served, job_id, found.last_id) as again:
        assert again.answer.status == 200
        assert statuses([await again.next()])[0] in {"pending", "unworkable"}


async def test_another_control_plane_takes_the_stream_up(served: Served) -> None:
    async with running_plane(beside=served.plane) as other:
        await served.plane.open_session()
        job_id = await served.plane.submit()
        await served.plane.claim()
        async with stream(served, job_id) as found:
            await found.next()
        await served.plane.claim(want=0, done=(done(job_id),))
        async with asyncio.timeout(10):
            frames = b"".join([frame async for frame in other.hub.job(job_id, found.last_id)])
    assert statuses([json.loads(line[6:]) for line in frames.splitlines() if line.startswith(b"data: ")]) == [
        "completed"
    ]


async def test_a_control_plane_that_stops_ends_the_stream_without_an_end_of_the_job(served: Served) -> None:
    job_id = await served.plane.submit()
    async with stream(served, job_id) as found:
        await found.next()
        await served.plane.hub.stop()
        assert await found.rest() == []


@pytest.mark.parametrize("path", ["/api/jobs/none/progress", "/api/jobs/none"])
async def test_an_unknown_job_is_not_found(served: Served, path: str) -> None:
    async with served.client.get(path) as answer:
        assert answer.status == 404
        assert (await answer.json())["code"] == "job_not_found"


# --- many at once -----------------------------------------------------------------------------------------------------


async def test_many_jobs_are_submitted_at_once_and_again_without_harm(served: Served) -> None:
    wanted = {"jobs": [{"job_id": f"j{number}", "type": "simulation", "priority": number} for number in range(3)]}
    for created in (True, False):
        async with served.client.post("/api/jobs/batch", json=wanted) as answer:
            assert answer.status == 200
            told = (await answer.json())["jobs"]
        assert [(one["job_id"], one["created"]) for one in told] == [(f"j{number}", created) for number in range(3)]


async def test_of_many_jobs_with_one_that_cannot_be_none_is_stored(served: Served) -> None:
    wanted = {"jobs": [{"job_id": "good", "type": "simulation"}, {"job_id": "bad"}]}
    async with served.client.post("/api/jobs/batch", json=wanted) as answer:
        assert answer.status == 400
        problem = await answer.json()
    assert problem["field"] == "service_required"
    assert "job 1" in problem["message"]
    async with served.client.get("/api/jobs/good") as answer:
        assert answer.status == 404
