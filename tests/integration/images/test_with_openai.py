"""Pictures for OpenAI's own client: made by a job, given inline or by a link, and refused in its own errors."""

import asyncio
import base64
from typing import Any

import aiohttp
import openai
import pytest

from muster.access.allowance import Allowance
from muster.access.roles import Role
from muster.access.tokens import Wanted
from muster.domain.file import FileRef
from muster.domain.job import ClaimedJob, JobStatus
from muster.domain.model import Model
from muster.domain.service import Dialect, Service, ServiceStatus
from tests.integration.gateway.engine import Asked, Engine
from tests.integration.gateway.wire import Wire, post
from tests.integration.images.conftest import Open, Studio, pictures
from tests.waiting import eventually

PATH = "/v1/images/generations"
TOKEN = "the-admins-token"


async def begun(
    studio: Studio, jobs: int = 1, token: str = "none", **asked: Any
) -> tuple["asyncio.Task[openai.types.ImagesResponse]", list[ClaimedJob]]:
    """Have a worker begin with what a caller asks for."""
    await studio.artist.come()
    client = studio.client(token)
    answer = asyncio.create_task(client.images.generate(**({"model": "one", "prompt": "a cat"} | asked)))
    return answer, await studio.artist.take(jobs)


async def serve(studio: Studio, url: str, model: str) -> None:
    """Have a server of OpenAI's paths in the fleet."""
    service = Service(
        name="s",
        connector="openai",
        status=ServiceStatus.RUNNING,
        url=url,
        dialects=(Dialect.OPENAI,),
        models=(Model(name=model),),
    )
    await studio.plane.heartbeat(services=(service,))


async def refused(studio: Studio, kind: type[openai.APIStatusError], **asked: Any) -> dict[str, Any]:
    with pytest.raises(kind) as raised:
        await studio.client().images.generate(**({"model": "one", "prompt": "a cat"} | asked))
    return {"headers": raised.value.response.headers, **raised.value.body}  # type: ignore[dict-item]  # untyped there


async def test_pictures_come_inline_in_their_order(studio: Studio) -> None:
    answer, jobs = await begun(studio, 2, n=2, size="640x320", response_format="b64_json", extra_body={"seed": 7})
    for job in reversed(jobs):
        seed = job.spec.payload["prompt"]["6"]["inputs"]["seed"]
        await studio.artist.done(job, b"seed %d" % seed)
    got = await answer
    assert [base64.b64decode(image.b64_json or "") for image in got.data or ()] == [b"seed 7", b"seed 8"]
    assert got.created > 1_700_000_000


async def test_a_link_is_for_the_token_that_asked_and_for_no_other(opened: Open) -> None:
    async with opened(TOKEN) as studio, aiohttp.ClientSession() as session:
        secrets = [
            (await studio.plane.access.create(Wanted(name=name, role=Role.CLIENT)))[1] for name in ("mine", "other")
        ]
        answer, (job,) = await begun(studio, token=secrets[0])
        await studio.artist.done(job, b"picture")
        (image,) = pictures(await answer)
        assert image.url is not None
        assert image.url.startswith(f"{studio.served.url}/api/files/{job.spec.job_id}/")

        async def fetched(token: str) -> tuple[int, bytes]:
            async with session.get(image.url or "", headers={"Authorization": f"Bearer {token}"}) as got:
                return got.status, await got.read()

        assert await fetched(secrets[0]) == (200, b"picture")
        assert (await fetched(secrets[1]))[0] == 404


async def test_a_link_has_the_name_that_the_caller_used(studio: Studio) -> None:
    await studio.artist.come()
    host, port = studio.served.url.removeprefix("http://").split(":")
    async with await Wire.open((host, int(port))) as wire:
        asked = {"model": "one", "prompt": "a cat"}
        for request, begins in (
            (post(PATH, asked), "http://muster/api/files/job-"),
            (post(PATH, asked, "X-Forwarded-Proto: https"), "https://muster/api/files/job-"),
            (post(PATH, asked).replace(b"host: muster\r\n", b""), "/api/files/job-"),
        ):
            wire.send(request)
            (job,) = await studio.artist.take()
            await studio.artist.done(job, b"picture")
            (image,) = (await wire.answer()).json["data"]
            assert image["url"].startswith(begins)


async def test_more_than_an_answer_may_hold_is_to_be_had_by_links(studio: Studio) -> None:
    answer, (job,) = await begun(studio, response_format="b64_json")
    large = FileRef(name="a.png", type="image/png", bytes=2**40, sha256="", url=f"/api/files/{job.spec.job_id}/1-a.png")
    await studio.artist.done_with(job, large)
    with pytest.raises(openai.APIStatusError, match="ask for response_format url") as raised:
        await answer
    assert raised.value.status_code == 413


async def test_who_leaves_has_no_job_any_more(studio: Studio) -> None:
    await studio.artist.come()
    host, port = studio.served.url.removeprefix("http://").split(":")
    wire = await Wire.open((host, int(port)))
    wire.send(post(PATH, {"model": "one", "prompt": "a cat", "n": 2}))
    (job,) = await studio.artist.take()
    wire.abort()

    async def both_are_cancelled() -> bool:
        return (await studio.plane.jobs.counts()).get(JobStatus.CANCELLED) == 2

    await eventually(both_are_cancelled)
    assert await studio.plane.status(job.spec.job_id) is JobStatus.CANCELLED


@pytest.mark.parametrize(
    ("asked", "param", "told"),
    [
        ({"n": 5}, "n", "n must be 1 to 4"),
        ({"size": "1024x1024"}, "size", "one of 512x512, 640x320"),
        ({"size": "large"}, "size", "WIDTHxHEIGHT"),
        ({"stream": True}, "stream", "leave out stream"),
        ({"prompt": ""}, "prompt", "length >= 1"),
        ({"extra_body": {"steps": 5}}, "steps", "one takes no steps"),
        ({"extra_body": {"seed": "x"}}, "seed", "Expected `int"),
    ],
)
async def test_what_a_model_does_not_do_is_a_bad_request(
    studio: Studio, asked: dict[str, Any], param: str, told: str
) -> None:
    error = await refused(studio, openai.BadRequestError, **asked)
    assert (error["param"], error["type"], error["headers"]["x-should-retry"]) == (
        param,
        "invalid_request_error",
        "false",
    )
    assert told in error["message"]


async def test_without_a_worker_it_is_said_what_is_missing(studio: Studio) -> None:
    error = await refused(studio, openai.InternalServerError)
    assert "once there is a worker that offers the service comfyui" in error["message"]
    assert (error["headers"]["retry-after"], error["headers"]["x-should-retry"]) == ("10", "true")


async def test_a_workflow_that_fails_tells_comfyuis_words(studio: Studio) -> None:
    answer, (job,) = await begun(studio)
    await studio.artist.fail(job, "upstream_failed", "node 5 ran out of memory")
    with pytest.raises(openai.InternalServerError, match="node 5 ran out of memory") as raised:
        await answer
    assert raised.value.status_code == 502


async def test_a_file_that_is_wrong_is_named(studio: Studio) -> None:
    error = await refused(studio, openai.InternalServerError, model="broken")
    assert "broken.json: muster.n_max: " in error["message"]
    assert (error["code"], error["headers"]["x-should-retry"]) == ("image_model_broken", "false")


async def test_models_are_listed_and_asked_as_far_as_a_token_may(opened: Open) -> None:
    async with opened(TOKEN) as studio:
        _, secret = await studio.plane.access.create(
            Wanted(name="c", role=Role.CLIENT, allowance=Allowance(models=("one",)))
        )
        client = studio.client(secret)
        assert [model.id async for model in studio.client(TOKEN).models.list()] == ["batch", "one"]
        assert [model.id async for model in client.models.list()] == ["one"]
        assert (await client.models.retrieve("one")).id == "one"
        with pytest.raises(openai.NotFoundError, match="may not use it"):
            await client.images.generate(model="batch", prompt="a cat")
        await serve(studio, "http://127.0.0.1:1", "language")
        with pytest.raises(openai.NotFoundError):
            await studio.client(TOKEN).images.generate(model="nobodys", prompt="a cat")
        answer, (job,) = await begun(studio, token=secret)  # though it may not have jobs with the checkpoint itself
        await studio.artist.done(job, b"picture")
        assert len(pictures(await answer)) == 1


async def test_it_is_metered_and_told_as_other_requests_are(opened: Open) -> None:
    async with opened(TOKEN) as studio:
        token, secret = await studio.plane.access.create(
            Wanted(name="c", role=Role.CLIENT, allowance=Allowance(requests_per_min=10, priority=30))
        )
        raw = asyncio.ensure_future(
            studio.client(secret).images.with_raw_response.generate(model="batch", prompt="a cat", n=2)
        )
        await studio.artist.come()
        (job,) = await studio.artist.take()
        assert (job.spec.submitted_by, job.spec.priority) == (token.token_id, 30)
        studio.plane.clock.advance(4.0)
        await studio.artist.done(job, b"1", b"2")
        headers = (await raw).headers
        assert headers["x-muster-job"] == job.spec.job_id
        assert job.spec.correlation_id == headers["x-correlation-id"]
        assert headers["x-ratelimit-limit-requests"] == "10"
        (used,) = studio.plane.metering._sums.values()
        assert (used.token, used.model, used.requests, used.worker_ms) == (token.token_id, "batch", 1, 4000)
        (model,) = studio.plane.gateway_view().models
        assert (model.model, model.answers) == ("batch", 1)


async def test_a_server_that_has_the_path_comes_first(studio: Studio) -> None:
    async def paint(asked: Asked) -> None:
        asked.reply({"created": 1, "data": [{"url": "by-the-server"}]})

    async with Engine(paint) as engine:
        await serve(studio, engine.url, "one")
        (image,) = pictures(await studio.client().images.generate(model="one", prompt="a cat"))
    assert image.url == "by-the-server"
