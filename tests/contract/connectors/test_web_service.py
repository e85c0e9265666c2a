"""HTTP services of the node's file: at once, by status, in events; and what a job may not reach by them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from muster.connectors.web_service.config import Polling, Streaming, WebService
from muster.connectors.web_service.connector import WebServiceConnector
from muster.connectors.web_service.exchange import retry_after_s
from muster.domain.job import Progress
from muster.domain.service import Service, ServiceStatus
from muster.errors import InvalidInput, PayloadTooLarge, SetupError, UpstreamFailed, UpstreamTimeout
from tests.contract.connectors.makers import NO_FILES, KeptFiles, claimed, unheard
from tests.contract.connectors.test_odd_servers import serving

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def at(url: str) -> Service:
    return Service(name="thumbs", connector="http:thumbs", status=ServiceStatus.RUNNING, url=url)


def thumbs(session: aiohttp.ClientSession, url: str, **more: Any) -> WebServiceConnector:
    return WebServiceConnector(session, WebService(name="thumbs", url=url, **more), {"KEY": "secret"})


def writes(*parts: bytes) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            for part in parts:
                await response.write(part)
        return response

    return answer


async def run(
    session: aiohttp.ClientSession,
    answers: dict[str, Any],
    payload: Any = None,
    report: Any = unheard,
    files: Any = NO_FILES,
    **config: Any,
) -> Any:
    async with serving(**answers) as url:
        connector = thumbs(session, url, **config)
        return await connector.run(claimed(payload, "http:thumbs"), at(url), report, files)


# --- at once ----------------------------------------------------------------------------------------------------------


async def test_the_body_is_sent_as_json_and_the_answer_is_the_result(session: aiohttp.ClientSession) -> None:
    seen: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.method, dict(request.query), request.headers["Authorization"], await request.json()))
        return web.json_response({"ok": True})

    payload = {"body": {"n": 1}, "query": {"size": 3, "big": True}}
    config: dict[str, Any] = {"path": "/make", "headers": {"Authorization": "Bearer {env:KEY}"}}
    assert await run(session, {"make": answer}, payload, **config) == {"ok": True}
    assert seen == [("POST", {"size": "3", "big": "true"}, "Bearer secret", {"n": 1})]


async def test_text_is_a_text_and_anything_else_a_file(session: aiohttp.ClientSession) -> None:
    async def text(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def picture(_: web.Request) -> web.Response:
        return web.Response(body=b"pixels", content_type="image/png")

    async def nothing(_: web.Request) -> web.Response:
        return web.Response(status=204)

    answers, paths = {"text": text, "png": picture, "no": nothing}, ("/text", "/png", "/no")
    files = KeptFiles()
    assert await run(session, answers, {"path": "/text"}, paths=paths) == {"text": "hello"}
    assert (await run(session, answers, {"path": "/png"}, files=files, paths=paths))["file"].type == "image/png"
    assert files.kept == {"answer.png": b"pixels"}
    assert await run(session, answers, {"path": "/no"}, paths=paths) is None


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"path": "/admin"}, "payload.path"),
        ({"path": "//elsewhere/x"}, "payload.path"),
        ({"path": "http://elsewhere/"}, "payload.path"),
        ({"path": "/../admin"}, "payload.path"),
        ({"path": "/make?x=1"}, "payload.path"),
        ({"method": "DELETE"}, "payload.method"),
        ({"url": "http://elsewhere"}, "payload.url"),
        ({"headers": {"Host": "elsewhere"}}, "payload.headers"),
    ],
)
async def test_a_job_cannot_say_where_it_goes(session: aiohttp.ClientSession, payload: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await run(session, {"make": {"ok": True}}, payload, path="/make")
    assert refused.value.field == field


async def test_a_redirect_is_not_followed(session: aiohttp.ClientSession) -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPFound("http://169.254.169.254/latest/meta-data")

    with pytest.raises(InvalidInput, match="no redirect is followed"):
        await run(session, {"make": elsewhere}, path="/make")


async def test_a_refusal_is_final_and_trouble_is_not(session: aiohttp.ClientSession) -> None:
    def says(status: int, **headers: str) -> Answer:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response({"error": "because"}, status=status, headers=headers)

        return answer

    with pytest.raises(InvalidInput, match=r"refused this job \(422\): because"):
        await run(session, {"make": says(422)}, path="/make")
    with pytest.raises(UpstreamFailed, match="answered 503: because") as failed:
        await run(session, {"make": says(503, **{"Retry-After": "7"})}, path="/make")
    assert failed.value.retry_after_s == 7.0
    with pytest.raises(InvalidInput, match="503"):
        await run(session, {"make": says(503)}, path="/make", retried=(429,))


def test_when_to_try_again_is_read_as_seconds_or_as_a_date() -> None:
    now = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    assert retry_after_s("120", now) == 120.0
    assert retry_after_s("Thu, 01 Jan 2026 12:01:00 GMT", now) == 60.0
    assert retry_after_s("Thu, 01 Jan 2026 11:00:00 GMT", now) == 0.0
    assert retry_after_s("soon", now) is None
    assert retry_after_s("", now) is None


async def test_an_answer_without_end_silence_and_length_are_bounded(session: aiohttp.ClientSession) -> None:
    over = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError, asyncio.CancelledError):
            while True:
                await response.write(b"x" * 10)
                await asyncio.wait([asyncio.ensure_future(over.wait())], timeout=0.01)
        return response

    with pytest.raises(PayloadTooLarge, match="more than 1000 bytes"):
        await run(session, {"make": writes(b"x" * 5000)}, path="/make", answer_bytes_max=1000)
    with pytest.raises(UpstreamTimeout, match=r"did not answer for 0\.2 s"):
        await run(session, {"make": hang}, path="/make", silence_s=0.2)
    with pytest.raises(UpstreamTimeout, match=r"did not end within 0\.3 s"):
        await run(session, {"make": drip}, path="/make", timeout_s=0.3)
    over.set()


# --- by status --------------------------------------------------------------------------------------------------------

POLL = Polling(
    id="job.id",
    status="/jobs/{id}",
    state="job.state",
    progress="job.percent",
    result="job.output.0",
    error="job.why",
    cancel="/jobs/{id}/stop",
    every_s=0.05,
)


class Later:
    """A service whose work is asked for; `states` are told one after the other, the last one for ever."""

    def __init__(self, *states: Any) -> None:
        self.states = list(states)
        self.asked = 0
        self.stopped = asyncio.Event()

    def answers(self) -> dict[str, Any]:
        return {"make": {"job": {"id": "a/1"}}, "jobs__{id}": self._status, "jobs__{id}__stop": self._stop}

    async def _status(self, _: web.Request) -> web.Response:
        state = self.states[min(self.asked, len(self.states) - 1)]
        self.asked += 1
        if isinstance(state, int):
            return web.Response(status=state)
        return web.json_response({"job": state})

    async def _stop(self, _: web.Request) -> web.Response:
        self.stopped.set()
        return web.Response()


async def test_work_is_asked_for_until_it_is_done(session: aiohttp.ClientSession) -> None:
    later = Later({"state": "queued"}, {"state": "running", "percent": 50}, {"state": "done", "output": ["x"]})
    heard: list[Progress] = []
    assert await run(session, later.answers(), None, heard.append, path="/make", answer="poll", poll=POLL) == "x"
    assert heard == [Progress(message="queued"), Progress(fraction=0.5, message="running")]
    assert not later.stopped.is_set()


async def test_work_that_failed_says_why_and_a_status_that_is_away_for_a_moment_is_forgiven(
    session: aiohttp.ClientSession,
) -> None:
    later = Later(503, {"state": "running"}, 503, 503, {"state": "failed", "why": "no paper"})
    with pytest.raises(InvalidInput, match="the work is failed: no paper"):
        await run(session, later.answers(), path="/make", answer="poll", poll=POLL)
    gone = Later(503)
    with pytest.raises(UpstreamFailed, match="503"):
        await run(session, gone.answers(), path="/make", answer="poll", poll=POLL)


async def test_a_cancel_is_passed_on(session: aiohttp.ClientSession) -> None:
    later, heard = Later({"state": "running"}), asyncio.Event()
    async with serving(**later.answers()) as url:
        connector = thumbs(session, url, path="/make", answer="poll", poll=POLL)
        task = asyncio.create_task(
            connector.run(claimed(None, "http:thumbs"), at(url), lambda _: heard.set(), NO_FILES)
        )
        await asyncio.wait_for(heard.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 1.0)
        assert later.stopped.is_set()


# --- in events --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["lines", "sse"])
async def test_events_become_progress_and_the_last_the_result(session: aiohttp.ClientSession, form: str) -> None:
    events = [{"at": 0.5, "say": "half"}, {"at": 1.0, "out": {"n": 1}}]
    if form == "lines":
        parts = [json.dumps(event).encode() + b"\n" for event in events]
    else:
        parts = [b": hello\n\nevent: x\nid: 1\n", *(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events)]
        parts.append(b"data: [DONE]\n\n")
    whole = b"".join(parts)
    heard: list[Progress] = []
    result = await run(
        session,
        {"make": writes(whole[:9], whole[9:])},
        None,
        heard.append,
        path="/make",
        answer="stream",
        stream=Streaming(progress="at", message="say", result="out"),
    )
    assert result == {"n": 1}
    assert heard == [Progress(fraction=0.5, message="half"), Progress(fraction=1.0)]


async def test_a_text_is_put_together(session: aiohttp.ClientSession) -> None:
    answer, heard = writes(b'{"d":"ab"}\n', b'{"d":"cd"}'), list[Progress]()
    stream = Streaming(text="d")
    result = await run(session, {"make": answer}, None, heard.append, path="/make", answer="stream", stream=stream)
    assert result == {"text": "abcd", "last": {"d": "cd"}}
    assert [progress.text for progress in heard] == ["ab", "abcd"]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((b"no json\n",), "not JSON"),
        ((b'{"error":"out of memory"}\n',), "out of memory"),
        ((), "without any event"),
    ],
)
async def test_events_that_cannot_be_are_the_services_fault(
    session: aiohttp.ClientSession, parts: tuple[bytes, ...], text: str
) -> None:
    with pytest.raises(UpstreamFailed, match=text):
        await run(session, {"make": writes(*parts)}, path="/make", answer="stream")


async def test_an_event_without_end_and_an_answer_without_end_are_too_large(session: aiohttp.ClientSession) -> None:
    with pytest.raises(PayloadTooLarge, match="a line of more than"):
        await run(session, {"make": writes(b"x" * 5_000_000)}, path="/make", answer="stream")
    with pytest.raises(PayloadTooLarge, match="more bytes than"):
        await run(session, {"make": writes(b'{"a":1}\n' * 99)}, path="/make", answer="stream", answer_bytes_max=99)


# --- whether it is there ----------------------------------------------------------------------------------------------


async def test_it_runs_when_it_answers_or_says_that_it_is_well(session: aiohttp.ClientSession) -> None:
    async with serving(make={}, sick=_status(500), away=_status(503)) as url:
        assert (await thumbs(session, url, path="/make", slots=3).probe(url)).slots == 3
        await thumbs(session, url, path="/nowhere").probe(url)  # it is there, whatever it makes of this
        with pytest.raises(UpstreamFailed, match="503"):
            await thumbs(session, url, path="/away").probe(url)
        with pytest.raises(UpstreamFailed, match="500"):
            await thumbs(session, url, path="/make", health="/sick").probe(url)
    with pytest.raises(UpstreamFailed, match="cannot connect"):
        await thumbs(session, url, path="/make").probe(url)


def _status(status: int) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status)

    return answer


async def test_a_service_that_cannot_be_is_refused_at_start(session: aiohttp.ClientSession) -> None:
    with pytest.raises(SetupError, match="no OTHER, which a header needs"):
        thumbs(session, "http://x", headers={"A": "{env:OTHER}"})
    with pytest.raises(SetupError, match=r"http\.poll"):
        thumbs(session, "http://x", answer="poll")
    with pytest.raises(SetupError, match="url must be"):
        thumbs(session, "http://x/?a=1")
