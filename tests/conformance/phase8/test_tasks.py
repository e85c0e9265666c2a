"""Tasks: taken in or refused at once, followed to exactly one end, cancelled for good."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from muster.agent.jobs.offer import Means, make_offer
from muster.agent.jobs.worker import Worker
from muster.connectors.simulation import SimulationConnector
from muster.domain.job import Progress, encode_result
from muster.ids import JobId, NodeId, SessionId
from muster.system import SystemClock
from muster.wire import Outcome, OutcomeKind, ProgressReport, ProgressReports
from tests.chance import FixedChance
from tests.conformance.phase8.conftest import Api, control_plane

TASK = {"engine": "simulation", "prompt": "one two three four"}


async def test_correlation(api: Api) -> None:
    for headers, expected in (({"X-Correlation-Id": "mine-1"}, "mine-1"), ({}, None)):
        seen = []
        async with _worker(api):
            _, task, given = await api.call("POST", "/v2/tasks", TASK, headers)
            seen.append(given["X-Correlation-Id"])
            async with api.client.get(task["streams"]["sse"], headers=headers) as stream:
                seen.append(stream.headers["X-Correlation-Id"])
                await stream.text()
        for path in ("/v2/nodes", "/v2/tasks/none/events", "/v2/nowhere", "/health"):
            _, _, given = await api.call("GET", path, headers=headers)
            seen.append(given["X-Correlation-Id"])
        if expected is not None:
            assert set(seen) == {expected}
        else:
            assert all(seen)
            assert len(set(seen)) == len(seen)


async def test_a_task_is_accepted_with_its_place_and_where_to_follow_it(api: Api) -> None:
    status, first, _ = await api.call("POST", "/v2/tasks", TASK)
    assert status == 202
    assert first["queue_position"] == 0
    assert first["predicted_start_ms"] is None  # nothing like it has been seen to its end
    assert first["streams"]["sse"] == f"/v2/tasks/{first['task_id']}/events"
    _, second, _ = await api.call("POST", "/v2/tasks", TASK)
    assert second["queue_position"] == 1


async def test_the_same_id_again_is_the_same_task(api: Api) -> None:
    for _ in range(2):
        status, task, _ = await api.call("POST", "/v2/tasks", TASK | {"task_id": "mine"})
        assert (status, task["task_id"]) == (202, "mine")
    assert (await api.get("/api/jobs"))["total"] == 1


async def test_a_stream_is_started_then_tokens_then_one_end(api: Api) -> None:
    async with _worker(api):
        _, task, _ = await api.call("POST", "/v2/tasks", TASK)
        events = await _follow(api, task["task_id"])
    names = [name for name, _ in events]
    assert names[0] == "started"
    assert names[-1] == "end"
    assert set(names[1:-1]) == {"token"}
    assert _text(events) == TASK["prompt"]
    assert [data["i"] for name, data in events if name == "token"] == list(range(len(names) - 2))


async def test_a_task_that_fails_ends_with_one_error(api: Api) -> None:
    ordered = TASK | {"params": {"error": {"code": "out_of_memory", "message": "no room", "retriable": False}}}
    async with _worker(api):
        _, task, _ = await api.call("POST", "/v2/tasks", ordered)
        events = await _follow(api, task["task_id"])
    assert events[-1] == ("error", {"code": "out_of_memory", "message": "no room", "retriable": False})
    assert [name for name, _ in events].count("error") == 1


async def test_the_text_comes_while_it_grows_and_nothing_of_it_is_lost_or_said_twice(api: Api) -> None:
    await api.plane.open_session()
    _, task, _ = await api.call("POST", "/v2/tasks", TASK)
    job_id = JobId(task["task_id"])
    await api.plane.claim()
    async with api.client.get(task["streams"]["sse"]) as stream:
        lines = _events(stream)
        assert (await anext(lines))[0] == "started"
        said = ""
        for text, at in (("one ", 0), ("one two ", 0), ("two three ", 4), ("three four", 8)):
            await _progress(api, job_id, text, at)
            name, data = await anext(lines)
            assert name == "token"
            said += data["t"]
        assert said == "one two three four"
        await _complete(api, job_id, {"text": "one two three four five"})
        assert [event async for event in lines] == [
            ("token", {"t": " five", "i": 4}),
            ("end", {"task_id": job_id, "tokens_out": None, "decode_time_ms": 0}),
        ]


async def test_who_comes_back_with_the_last_id_gets_only_the_rest(api: Api) -> None:
    await api.plane.open_session()
    _, task, _ = await api.call("POST", "/v2/tasks", TASK)
    job_id = JobId(task["task_id"])
    await api.plane.claim()
    await _progress(api, job_id, "one two three", 0)
    await _complete(api, job_id, {"text": "one two three four"})
    async with api.client.get(task["streams"]["sse"], headers={"Last-Event-ID": "1.8"}) as stream:
        assert _text([event async for event in _events(stream)]) == "three four"


async def test_an_answer_that_another_worker_begins_anew_is_not_mixed_with_the_first(api: Api) -> None:
    await api.plane.open_session()
    _, task, _ = await api.call("POST", "/v2/tasks", TASK)
    job_id = JobId(task["task_id"])
    await api.plane.claim()
    async with api.client.get(task["streams"]["sse"]) as stream:
        lines = _events(stream)
        await anext(lines)
        await _progress(api, job_id, "one two", 0)
        await anext(lines)
        returned = Outcome(job_id=job_id, attempt=1, kind=OutcomeKind.RETURNED)
        await api.plane.claim(done=(returned,))
        await api.plane.claim()
        rest = [event async for event in lines]
    assert [(name, data["code"]) for name, data in rest] == [("error", "restarted")]


async def test_queue_full() -> None:
    async with control_plane(waiting_max=2) as api:
        for _ in range(2):
            assert (await api.call("POST", "/v2/tasks", TASK))[0] == 202
        status, body, headers = await api.call("POST", "/v2/tasks", TASK)
        assert status == 429
        assert int(headers["Retry-After"]) >= 1
        assert int(headers["X-Backoff-Ms"]) == body["retry_after_ms"] > 0
        assert (body["code"], body["retriable"], body["policy_label"]) == ("queue_full", True, "reject_new")
        assert (await api.get("/api/jobs"))["total"] == 2


async def test_queue_full_of_one_kind_leaves_the_others_alone() -> None:
    async with control_plane(waiting_max=1) as api:
        await api.node("node-1", "model-a")
        await api.node("node-2", "model-b")
        for model in ("model-a", "model-b"):
            assert (await api.call("POST", "/v2/tasks", {"model": model, "prompt": "hi"}))[0] == 202
        assert (await api.call("POST", "/v2/tasks", {"model": "model-a", "prompt": "hi"}))[0] == 429


async def test_queue_full_counts_those_that_come_at_the_same_time() -> None:
    async with control_plane(waiting_max=5) as api:
        answers = await asyncio.gather(*(api.call("POST", "/v2/tasks", TASK) for _ in range(20)))
        assert sorted(status for status, _, _ in answers) == [202] * 5 + [429] * 15


async def test_cancel(api: Api) -> None:
    await api.plane.open_session()
    _, task, _ = await api.call("POST", "/v2/tasks", TASK)
    job_id = JobId(task["task_id"])
    await api.plane.claim()
    async with api.client.get(task["streams"]["sse"]) as stream:
        lines = _events(stream)
        await anext(lines)
        await _progress(api, job_id, "one ", 0)
        await anext(lines)
        status, body, _ = await api.call("POST", f"/v2/tasks/{job_id}/cancel")
        assert (status, body) == (204, "")
        await _progress(api, job_id, "one two ", 0)  # the worker has not heard of it yet
        rest = [event async for event in lines]
    assert [(name, data["code"]) for name, data in rest] == [("error", "cancelled")]
    assert (await api.call("POST", f"/v2/tasks/{job_id}/cancel"))[0] == 204  # again changes nothing


async def test_cancel_of_a_waiting_task_ends_its_stream(api: Api) -> None:
    _, task, _ = await api.call("POST", "/v2/tasks", TASK)
    async with api.client.get(task["streams"]["sse"]) as stream:
        lines = _events(stream)
        await anext(lines)
        assert (await api.call("POST", f"/v2/tasks/{task['task_id']}/cancel"))[0] == 204
        assert [name async for name, _ in lines] == ["error"]


async def test_cancel_of_what_is_not_there_or_over(api: Api) -> None:
    assert (await api.call("POST", "/v2/tasks/nothing/cancel"))[0] == 404
    async with _worker(api):
        _, task, _ = await api.call("POST", "/v2/tasks", TASK)
        await _follow(api, task["task_id"])
    assert (await api.call("POST", f"/v2/tasks/{task['task_id']}/cancel"))[0] == 409


async def test_a_stop_of_the_control_plane_ends_streams_with_one_error(api: Api) -> None:
    _, task, _ = await api.call("POST", "/v2/tasks", TASK)
    async with api.client.get(task["streams"]["sse"]) as stream:
        lines = _events(stream)
        await anext(lines)
        await api.plane.hub.stop()
        assert [(name, data["code"]) async for name, data in lines] == [("error", "shutting_down")]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "prompt"),
        ({"prompt": "a", "model": "x", "model_ref": "y"}, "model"),
        ({"prompt": "a", "priority": 101}, "priority"),
        ({"prompt": "a", "deadline_ms": 1}, "deadline_ms"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "a", "task_id": "no spaces"}, "job_id"),
    ],
)
async def test_a_task_that_cannot_be_is_refused_and_not_stored(api: Api, body: dict[str, Any], field: str) -> None:
    status, problem, _ = await api.call("POST", "/v2/tasks", body)
    assert (status, problem["field"]) == (400, field)
    assert (await api.get("/api/jobs"))["total"] == 0


# --- the other end ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _worker(api: Api) -> AsyncIterator[None]:
    chance = FixedChance(0.5)
    connectors = {"simulation": SimulationConnector(chance)}
    worker = Worker(NodeId("n1"), 0, api.plane.jobs, SystemClock(), chance, stop_timeout_s=0.1)
    worker.offer(make_offer(connectors, (), Means()))
    await worker.start()
    try:
        yield
    finally:
        await worker.stop()


async def _progress(api: Api, job_id: JobId, text: str, at: int) -> None:
    report = ProgressReport(job_id=job_id, attempt=1, progress=Progress(text=text, text_at=at))
    await api.plane.jobs.report_progress(ProgressReports(session_id=SessionId("s1"), reports=(report,)))


async def _complete(api: Api, job_id: JobId, result: Any) -> None:
    done = Outcome(job_id=job_id, attempt=1, kind=OutcomeKind.COMPLETED, result=encode_result(result))
    await api.plane.claim(done=(done,), want=0)


async def _follow(api: Api, task_id: str) -> list[tuple[str, Any]]:
    async with api.client.get(f"/v2/tasks/{task_id}/events") as stream:
        assert stream.content_type == "text/event-stream"
        return [event async for event in _events(stream)]


async def _events(stream: Any) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    async for line in stream.content:
        if line.startswith(b"event: "):
            name = line[7:].strip().decode()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])


def _text(events: list[tuple[str, Any]]) -> str:
    return "".join(data["t"] for name, data in events if name == "token")
