"""What the client makes of odd answers: which are tried again, and as which errors the others come."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from muster import errors
from muster.api.jobs import SubmitJob
from muster.client import AsyncClient, Client, JobOptions, NewJob, NotTrusted, Refused, Unreachable
from muster.tls import Certificate
from tests.certificates import write_certificate
from tests.made_server import MadeServer, Said, Talk
from tests.muster_process import free_port

JOB: dict[str, Any] = {"job_id": "job-1", "service_required": "simulation", "status": "pending"}
TAKEN = Said({"job_id": "job-1", "created": True, "job": JOB}, 201)


def refusal(error: errors.MusterError) -> Said:
    return Said(error.to_dict(), error.http_status)


async def test_a_request_carries_token_and_correlation_id(made: MadeServer, client: AsyncClient) -> None:
    made.on("POST", "/api/jobs", TAKEN)
    await client.submit("simulation", {"a": 1}, priority=3)
    (request,) = made.requests
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["x-correlation-id"].startswith("cli-")
    body = dict(request.body)
    assert body.pop("job_id").startswith("job-")
    assert body == {"service_required": "simulation", "payload": {"a": 1}, "priority": 3}


async def test_a_key_takes_the_place_of_the_id(made: MadeServer, client: AsyncClient) -> None:
    made.on("POST", "/api/jobs", TAKEN)
    await client.submit("simulation", idempotency_key="order-7")
    assert made.requests[0].body == {
        "service_required": "simulation",
        "payload": None,
        "idempotency_key": "order-7",
    }


@pytest.mark.parametrize("name", ["job_id", "idempotency_key"])
async def test_what_names_one_job_cannot_be_that_of_many(client: AsyncClient, name: str) -> None:
    options: JobOptions = {name: "x"}  # type: ignore[misc]  # either is one of its keys
    with pytest.raises(ValueError, match=f"{name} names one job"):
        client.mapping("simulation", options, in_flight=1, ordered=True, wait_s=1)


def test_everything_that_can_be_submitted_is_an_option_of_the_client() -> None:
    other_names = {"service_required", "job_type", "type", "id", "payload"}
    assert JobOptions.__optional_keys__ == set(SubmitJob.__struct_fields__) - other_names


async def test_a_lost_answer_is_asked_for_again_with_the_same_id(made: MadeServer, client: AsyncClient) -> None:
    made.on("POST", "/api/jobs", Said(cuts=True), TAKEN)
    await client.submit("simulation")
    first, second = made.requests
    assert first.body["job_id"] == second.body["job_id"]


async def test_what_passes_is_waited_for(made: MadeServer, client: AsyncClient) -> None:
    full = errors.QueueFull("full", retry_after_s=0.001)
    made.on("POST", "/api/jobs", refusal(full), refusal(errors.ShuttingDown("stops")), Said(b"<html>", 502), TAKEN)
    assert (await client.submit("simulation")).job_id == "job-1"
    assert len(made.requests) == 4


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidInput("no", field="priority"),
        errors.PayloadTooLarge("no"),
        errors.Unauthorized("no"),
        errors.Forbidden("no"),
        errors.JobNotFound("no"),
        errors.Conflict("no"),
        errors.SwitchedOff("no"),
    ],
    ids=lambda error: error.code,
)
async def test_errors_come_as_their_classes_and_are_not_tried_again(
    made: MadeServer, client: AsyncClient, error: errors.MusterError
) -> None:
    made.on("GET", "/api/jobs/x", refusal(error))
    with pytest.raises(type(error)) as raised:
        await client.get("x")
    assert type(raised.value) is type(error)
    assert (raised.value.message, raised.value.field) == ("no", error.field)
    assert len(made.requests) == 1


@pytest.mark.parametrize("body", [{"code": "brand_new", "message": "m"}, {}, [], b"<html>", None])
async def test_an_error_of_a_kind_that_is_not_known_is_refused(
    made: MadeServer, client: AsyncClient, body: Any
) -> None:
    made.on("GET", "/api/jobs/x", Said(body, 418))
    with pytest.raises(Refused) as raised:
        await client.get("x")
    assert raised.value.data["status"] == 418


async def test_a_control_plane_that_is_silent_is_given_up(made: MadeServer) -> None:
    made.on("GET", "/api/jobs/x", Said(hangs=True))
    async with AsyncClient(made.url, token="", timeout_s=0.05, give_up_after_s=0.2) as client:
        with pytest.raises(Unreachable, match="in time"):
            await client.get("x")
    assert len(made.requests) > 1


async def test_nobody_there_is_said_with_the_address() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with AsyncClient(url, token="", give_up_after_s=0.1) as client:
        with pytest.raises(Unreachable, match=url):
            await client.get("x")


async def test_of_several_control_planes_one_that_answers_is_enough(made: MadeServer) -> None:
    made.on("GET", "/api/jobs/job-1", Said({"job": JOB}))
    urls = f"http://127.0.0.1:{free_port()}, {made.url}"
    async with AsyncClient(urls, token="", give_up_after_s=5.0) as client:
        assert (await client.get("job-1")).job_id == "job-1"
        assert client.url == made.url


async def test_a_cancel_whose_answer_was_lost_is_done(made: MadeServer, client: AsyncClient) -> None:
    ended = errors.InvalidTransition("it has ended")
    made.on("POST", "/api/jobs/job-1/cancel", Said(cuts=True), refusal(ended))
    made.on("GET", "/api/jobs/job-1", Said({"job": JOB | {"status": "cancelled"}}))
    assert (await client.cancel("job-1")).status == "cancelled"


async def test_a_retry_whose_answer_was_lost_is_not_done_twice(made: MadeServer, client: AsyncClient) -> None:
    made.on("POST", "/api/jobs/job-1/retry", Said(cuts=True))
    with pytest.raises(Unreachable):
        await client.retry("job-1")
    assert len(made.requests) == 1


async def test_too_many_at_once_are_sent_as_less(made: MadeServer, client: AsyncClient) -> None:
    too_large = refusal(errors.PayloadTooLarge("too much"))
    two = Said({"jobs": [{"job_id": "a"}, {"job_id": "b"}]})
    made.on("POST", "/api/jobs/batch", too_large, two, two)
    assert await client.submit_many([NewJob("simulation")] * 4) == ["a", "b"] * 2
    assert [len(request.body["jobs"]) for request in made.requests] == [4, 2, 2]


async def test_one_that_is_too_large_alone_is_refused(made: MadeServer, client: AsyncClient) -> None:
    made.on("POST", "/api/jobs/batch", refusal(errors.PayloadTooLarge("too much", field="payload")))
    with pytest.raises(errors.PayloadTooLarge):
        await client.submit_many([NewJob("simulation")] * 2)


async def test_what_a_newer_control_plane_says_besides_is_left_out(made: MadeServer, client: AsyncClient) -> None:
    made.on("GET", "/api/jobs/job-1", Said({"job": JOB | {"status": "resting", "mood": "good"}}))
    job = await client.get("job-1")
    assert (job.status, job.done, job.ok) == ("resting", False, False)


async def test_an_id_is_no_path(made: MadeServer, client: AsyncClient) -> None:
    with pytest.raises(errors.NotFound):
        await client.get("../tokens?x=1")
    assert made.requests[0].path == "/api/jobs/../tokens?x=1"
    assert made.requests[0].query == {}


# --- files ------------------------------------------------------------------------------------------------------------


async def test_a_file_is_written_whole_or_not_at_all(made: MadeServer, client: AsyncClient, tmp_path: Path) -> None:
    made.on("GET", "/api/files/f", Said(b"x" * 100_000), Said({"code": "not_found", "message": "gone"}, 404))
    target = tmp_path / "f"
    assert await client.download("/api/files/f", target) == 100_000
    with pytest.raises(errors.NotFound):
        await client.download("/api/files/f", target)
    assert target.stat().st_size == 100_000
    assert await asyncio.to_thread(lambda: [path.name for path in tmp_path.iterdir()]) == ["f"]


async def test_a_file_elsewhere_is_shown_no_token(made: MadeServer, client: AsyncClient, tmp_path: Path) -> None:
    made.on("GET", "/elsewhere", Said(b"abc"))
    assert await client.download(f"{made.url}/elsewhere", tmp_path / "f") == 3
    assert "authorization" not in made.requests[0].headers


# --- what it is given -------------------------------------------------------------------------------------------------


def test_the_environment_says_where_and_with_which_token(made: MadeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_CONTROL_PLANE", made.url)
    monkeypatch.setenv("MUSTER_TOKEN", "of-the-environment")
    made.on("GET", "/api/jobs/job-1", Said({"job": JOB}))
    with Client() as client:
        client.get("job-1")
    assert made.requests[0].headers["authorization"] == "Bearer of-the-environment"


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http:///path"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        AsyncClient(url)


def test_a_ca_file_that_is_not_there_is_said() -> None:
    with pytest.raises(errors.SetupError, match="/no/such/file"):
        AsyncClient("https://localhost:1", ca_file="/no/such/file")


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_whom_to_trust_is_said_with_a_file_and_nobody_else_is(tmp_path: Path) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    other_file, _ = write_certificate(tmp_path, "other")

    async def talks(talk: Talk) -> None:
        await talk.greet()
        await talk.hear()
        await talk.complete(JOB | {"status": "completed"})
        await talk.rest()

    with MadeServer(Certificate(cert_file, key_file).context) as made:
        made.on("GET", "/api/jobs/job-1", Said({"job": JOB}))
        made.talks_as(talks)
        async with AsyncClient(made.url, token="", ca_file=cert_file) as client:
            assert (await client.get("job-1")).job_id == "job-1"
            assert (await client.wait("job-1", 10)).ok
        async with AsyncClient(made.url, token="", ca_file=other_file) as client:
            for doing in (client.get("job-1"), client.wait("job-1", 10)):
                with pytest.raises(NotTrusted, match="MUSTER_CA_FILE"):
                    await doing
        assert len(made.requests) == 1
