"""A client's jobs over one WebSocket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from muster.access.roles import Role
from muster.access.tokens import Wanted
from muster.api import client_socket
from muster.domain.job import Progress, encode_result
from muster.ids import JobId, SessionId
from muster.wire import Outcome, OutcomeKind, ProgressReport, ProgressReports
from tests.integration.api.conftest import Served, serving
from tests.waiting import eventually


class Talk:
    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def say(self, kind: str, **fields: Any) -> None:
        await self.ws.send_str(json.dumps({"type": kind} | fields))

    async def hear(self, *kinds: str) -> dict[str, Any]:
        """Return the next message, of one of these kinds when given."""
        async with asyncio.timeout(10):
            while True:
                found = dict(json.loads(await self.ws.receive_str()))
                if not kinds or found["type"] in kinds:
                    return found

    async def ask(self, kind: str, *answers: str, **fields: Any) -> dict[str, Any]:
        await self.say(kind, id="m1", **fields)
        answer = await self.hear(*answers, "error")
        assert answer["message_id"] == "m1"
        return answer


@asynccontextmanager
async def talking(served: Served, **options: Any) -> AsyncIterator[Talk]:
    async with served.client.ws_connect("/ws/client/c1", **options) as ws:
        yield Talk(ws)


def done(job_id: str) -> Outcome:
    return Outcome(job_id=JobId(job_id), attempt=1, kind=OutcomeKind.COMPLETED, result=encode_result({"n": 1}))


async def test_a_job_is_submitted_followed_and_ends_once(served: Served) -> None:
    await served.plane.open_session()
    async with talking(served) as talk:
        greeting = await talk.hear()
        assert (greeting["type"], greeting["client_id"]) == ("connection_established", "c1")
        accepted = await talk.ask("submit_job", "job_accepted", job_type="simulation", payload={"a": 1}, timestamp=1)
        job_id = accepted["job_id"]
        assert accepted["created"]
        assert (await talk.hear("job_update"))["job_id"] == job_id
        await served.plane.claim()
        assert (await talk.hear("job_update"))["status"] == "assigned"
        report = ProgressReport(job_id=job_id, attempt=1, progress=Progress(fraction=0.25, message="a quarter"))
        await served.plane.jobs.report_progress(ProgressReports(session_id=SessionId("s1"), reports=(report,)))
        moved = await talk.hear("update_job_progress")
        assert (moved["progress"], moved["fraction"], moved["message"]) == (25.0, 0.25, "a quarter")
        await served.plane.claim(want=0, done=(done(job_id),))
        end = await talk.hear("complete_job")
        assert (end["job_id"], end["status"], end["result"]) == (job_id, "completed", {"n": 1})
        assert "payload" not in end["job"]
        await served.plane.submit("other")
        await talk.say("subscribe_job", job_id="other")
        later = [await talk.hear() for _ in range(2)]
    assert {message["type"] for message in later} == {"subscription_confirmed", "job_update"}


async def test_a_job_that_had_ended_before_is_told_its_end(served: Served) -> None:
    job_id = await served.plane.submit()
    await served.plane.jobs.cancel(job_id)
    async with talking(served) as talk:
        await talk.ask("subscribe_job", "subscription_confirmed", job_id=job_id)
        assert (await talk.hear("job_update", "complete_job"))["status"] == "cancelled"


async def test_lesson_one_connection_follows_hundreds_of_jobs(served: Served) -> None:
    job_ids = [await served.plane.submit(f"j{number}") for number in range(300)]
    async with talking(served) as talk:
        await talk.ask("subscribe_job", "subscription_confirmed", job_ids=job_ids)
        for job_id in job_ids:
            await served.plane.jobs.cancel(job_id)
        ended = [(await talk.hear("complete_job"))["job_id"] for _ in job_ids]
        assert sorted(ended) == sorted(job_ids)
        assert served.plane.hub.readers == 1


async def test_who_comes_back_hears_only_what_is_new(served: Served) -> None:
    await served.plane.open_session()
    for name in ("same", "ended"):
        await served.plane.submit(name)
    async with talking(served) as talk:
        await talk.say("subscribe_job", job_ids=["same", "ended"])
        seen = {(update := await talk.hear("job_update"))["job_id"]: update["event_id"] for _ in range(2)}
    await served.plane.jobs.cancel(JobId("ended"))
    async with talking(served) as talk:
        await talk.ask("subscribe_job", "subscription_confirmed", job_ids=["same", "ended"], after=seen)
        assert (await talk.hear("job_update", "complete_job"))["job_id"] == "ended"


async def test_what_is_not_followed_any_more_is_not_told(served: Served) -> None:
    for name in ("a", "b"):
        await served.plane.submit(name)
    async with talking(served) as talk:
        await talk.say("subscribe_job", job_ids=["a", "b"])
        await talk.hear("job_update")
        await talk.hear("job_update")
        await talk.ask("unsubscribe_job", "ack", job_id="a")
        await served.plane.jobs.cancel(JobId("a"))
        await served.plane.jobs.cancel(JobId("b"))
        assert (await talk.hear("complete_job"))["job_id"] == "b"


async def test_a_job_is_cancelled_and_its_end_is_told_beside_the_answer(served: Served) -> None:
    await served.plane.submit("j")
    async with talking(served) as talk:
        await talk.ask("subscribe_job", "subscription_confirmed", job_id="j")
        await talk.hear("job_update")
        await talk.say("cancel_job", id="m2", job_id="j", reason="not needed")
        both = {(message := await talk.hear())["type"]: message for _ in range(2)}
    assert (both["ack"]["message_id"], both["ack"]["original_type"], both["ack"]["status"]) == (
        "m2",
        "cancel_job",
        "cancelled",
    )
    assert both["complete_job"]["status"] == "cancelled"


async def test_how_a_job_stands_can_be_asked(served: Served) -> None:
    await served.plane.submit("j", payload={"a": 1})
    async with talking(served) as talk:
        answer = await talk.ask("request_job_status", "response_job_status", job_id="j")
    assert answer["job"]["payload"] == {"a": 1}


async def test_the_same_submit_twice_is_one_job(served: Served) -> None:
    async with talking(served) as talk:
        for created in (True, False):
            answer = await talk.ask("submit_job", "job_accepted", job_id="mine", service_required="simulation")
            assert answer["created"] is created


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ("nonsense", "invalid_input", None),
        ('{"type": "dance", "id": "m"}', "invalid_input", "type"),
        ('{"type": "submit_job", "id": "m"}', "invalid_input", "service_required"),
        ('{"type": "submit_job", "job_type": "simulation", "priority": "x"}', "invalid_input", "priority"),
        ('{"type": "submit_job", "job_type": "simulation", "speed": 1}', "invalid_input", "speed"),
        ('{"type": "subscribe_job", "id": "m"}', "invalid_input", "job_ids"),
        ('{"type": "cancel_job", "id": "m"}', "invalid_input", "job_id"),
        ('{"type": "cancel_job", "job_id": "none"}', "job_not_found", "job_id"),
        ('{"type": "request_job_status", "job_id": "none"}', "job_not_found", "job_id"),
    ],
)
async def test_what_cannot_be_is_answered_and_the_connection_stays(
    served: Served, text: str, code: str, field: str | None
) -> None:
    async with talking(served) as talk:
        await talk.ws.send_str(text)
        error = await talk.hear("error")
        assert (error["code"], error["field"]) == (code, field)
        assert error["error"]
        await talk.ws.send_bytes(b'{"type": "submit_job", "job_type": "simulation"}')
        await talk.hear("job_accepted")


async def test_a_job_that_is_not_there_is_an_error_of_that_job(served: Served) -> None:
    async with talking(served) as talk:
        await talk.say("subscribe_job", job_ids=["none"])
        error = await talk.hear("error")
    assert (error["job_id"], error["code"]) == ("none", "job_not_found")


async def test_how_many_jobs_one_connection_follows_is_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_socket, "FOLLOWED_MAX", 2)
    for name in "abc":
        await served.plane.submit(name)
    async with talking(served) as talk:
        await talk.ask("subscribe_job", "subscription_confirmed", job_ids=["a", "b"])
        assert (await talk.ask("subscribe_job", job_id="c"))["code"] == "queue_full"
        assert (await talk.ask("submit_job", job_type="simulation"))["code"] == "queue_full"
        await served.plane.jobs.cancel(JobId("a"))
        await talk.hear("complete_job")
        await talk.ask("subscribe_job", "subscription_confirmed", job_id="c")


async def test_whoever_left_is_forgotten(served: Served) -> None:
    await served.plane.submit("j")
    async with talking(served) as talk:
        await talk.ask("subscribe_job", "subscription_confirmed", job_id="j")
        assert served.plane.hub.readers == 1
    await eventually(lambda: served.plane.hub.readers == 0)


async def test_a_control_plane_that_stops_says_goodbye(served: Served) -> None:
    async with talking(served) as talk:
        await talk.hear("connection_established")
        await served.plane.hub.stop()
        async with asyncio.timeout(10):
            assert (await talk.ws.receive()).type is aiohttp.WSMsgType.CLOSE
        assert talk.ws.close_code == 1001


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def guarded() -> AsyncIterator[Served]:
    async with serving(token="right") as served:
        yield served


async def bearer(served: Served, role: Role) -> dict[str, Any]:
    _, text = await served.plane.access.create(Wanted(name=role.value, role=role))
    return {"headers": {"Authorization": f"Bearer {text}"}}


async def test_without_a_token_the_socket_is_closed_with_1008(guarded: Served) -> None:
    async with talking(guarded) as talk, asyncio.timeout(10):
        assert (await talk.ws.receive()).type is aiohttp.WSMsgType.CLOSE
    assert talk.ws.close_code == 1008


async def test_a_token_of_an_agent_has_not_the_right(guarded: Served) -> None:
    async with talking(guarded, **await bearer(guarded, Role.AGENT)) as talk, asyncio.timeout(10):
        assert (await talk.ws.receive()).type is aiohttp.WSMsgType.CLOSE
    assert talk.ws.close_code == 1008


async def test_a_viewer_follows_and_may_not_act(guarded: Served) -> None:
    await guarded.plane.submit("j")
    async with talking(guarded, **await bearer(guarded, Role.VIEWER)) as talk:
        await talk.ask("subscribe_job", "subscription_confirmed", job_id="j")
        assert (await talk.ask("submit_job", job_type="simulation"))["code"] == "forbidden"
        assert (await talk.ask("cancel_job", job_id="j"))["code"] == "forbidden"


async def test_a_client_sees_and_cancels_its_own_jobs_only(guarded: Served) -> None:
    await guarded.plane.submit("theirs")
    async with talking(guarded, **await bearer(guarded, Role.CLIENT)) as talk:
        own = (await talk.ask("submit_job", "job_accepted", job_type="simulation"))["job_id"]
        await talk.say("subscribe_job", id="m1", job_ids=["theirs", own])
        refused = await talk.hear("error")
        assert (refused["job_id"], refused["code"]) == ("theirs", "job_not_found")
        assert (await talk.hear("subscription_confirmed"))["job_ids"] == [own]
        for kind in ("cancel_job", "request_job_status"):
            assert (await talk.ask(kind, job_id="theirs"))["code"] == "job_not_found"
        assert (await talk.ask("submit_job", job_type="simulation", job_id="theirs"))["code"] == "conflict"
        assert (await talk.ask("cancel_job", "ack", job_id=own))["status"] == "cancelled"


async def test_each_request_counts_and_none_is_answered_to_a_revoked_token(guarded: Served) -> None:
    token, text = await guarded.plane.access.create(Wanted(name="c", role=Role.CLIENT, requests_per_s=2.0))
    async with talking(guarded, headers={"Authorization": f"Bearer {text}"}) as talk:
        codes = [(await talk.ask("request_job_status", job_id="none"))["code"] for _ in range(20)]
        assert "rate_limited" in codes
        await guarded.plane.access.revoke(token.token_id)
        assert (await talk.ask("request_job_status", job_id="none"))["code"] == "unauthorized"
