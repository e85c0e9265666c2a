"""Files over HTTP: people send and fetch them, agents keep those of their jobs, nobody sees another's."""

import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from muster.access.roles import Role
from muster.agent.jobs.files import AttemptFiles
from muster.domain.job import ClaimedJob, JobSpec, JobStatus
from muster.errors import Conflict, FilesFull, Forbidden, NotFound, PayloadTooLarge, UpstreamFailed
from muster.ids import JobId
from muster.links.http.files import HttpFiles
from muster.wire import Outcome, OutcomeKind
from tests.integration.api.conftest import Served, serving
from tests.planes import FILE_BYTES_MAX

ADMIN = {"Authorization": "Bearer admin-secret"}


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(files=tmp_path / "files") as served:
        yield served


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(token="admin-secret", files=tmp_path / "files") as served:
        yield served


async def running_job(served: Served, **fields: Any) -> ClaimedJob:
    await served.plane.open_session()
    await served.plane.submit("job-1", **fields)
    (job,) = (await served.plane.claim()).jobs
    return job


def of_agent(served: Served, job: ClaimedJob, token: str | None = None) -> AttemptFiles:
    return AttemptFiles(HttpFiles(served.url, served.client, lambda: token), job, pauses_s=())


async def token_of(served: Served, role: Role, node_id: str | None = None) -> tuple[str, str]:
    body = {"name": f"{role.value}-{node_id}", "role": role.value} | ({"node_id": node_id} if node_id else {})
    async with served.client.post("/api/v1/tokens", json=body, headers=ADMIN) as answer:
        told = await answer.json()
        assert answer.status == 201, told
        return told["token"], told["about"]["id"]


async def test_a_file_is_sent_and_fetched_whole_and_in_parts(files: Served) -> None:
    body = b"0123456789" * 5000
    async with files.client.put("/api/files/photo.png", data=body) as answer:
        assert answer.status == 201
        sent = await answer.json()
    assert sent["bytes"] == len(body) > 10_000  # larger than any other request may be
    assert (sent["type"], sent["sha256"]) == ("image/png", hashlib.sha256(body).hexdigest())
    async with files.client.get(sent["url"]) as answer:
        assert await answer.read() == body
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.headers["Content-Length"] == str(len(body))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Disposition"].startswith("inline")
    for wanted, start, end in (("bytes=2-5", 2, 6), ("bytes=49990-", 49_990, 50_000), ("bytes=-3", 49_997, 50_000)):
        async with files.client.get(sent["url"], headers={"Range": wanted}) as answer:
            assert answer.status == 206
            assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/50000"
            assert await answer.read() == body[start:end]
    async with files.client.get(sent["url"], headers={"Range": "bytes=50000-"}) as answer:
        assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */50000")
    async with files.client.get(sent["url"], headers={"Range": "lines=1-2"}) as answer:
        assert answer.status == 200


async def test_what_a_browser_could_run_is_only_handed_over(files: Served) -> None:
    async with files.client.put("/api/files/page.html", data=b"<script>") as answer:
        sent = await answer.json()
    async with files.client.get(sent["url"]) as answer:
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"].startswith("attachment")


async def test_limits_of_one_and_of_all_files_are_told(files: Served) -> None:
    async with files.client.put("/api/files/a", data=b"x" * (FILE_BYTES_MAX + 1)) as answer:
        assert (answer.status, (await answer.json())["code"]) == (413, PayloadTooLarge.code)
    for _ in range(3):
        async with files.client.put("/api/files/a", data=b"x" * FILE_BYTES_MAX) as answer:
            assert answer.status == 201
    async with files.client.put("/api/files/a", data=b"x") as answer:
        assert (answer.status, (await answer.json())["code"]) == (507, FilesFull.code)


@pytest.mark.parametrize("path", ["/api/files/..%2f..%2fetc/passwd", "/api/files/job-1/none", "/api/files/.x/a"])
async def test_what_is_not_there_is_not_found(files: Served, path: str) -> None:
    async with files.client.get(path) as answer:
        assert answer.status in {400, 404}


async def test_without_a_place_for_files_it_says_so(served: Served) -> None:
    async with served.client.put("/api/files/a", data=b"x") as answer:
        assert (answer.status, (await answer.json())["code"]) == (503, "switched_off")


# --- agents -----------------------------------------------------------------------------------------------------------


async def test_an_attempt_keeps_files_and_reads_what_its_payload_names(files: Served, tmp_path: Path) -> None:
    async with files.client.put("/api/files/in.txt", data=b"input") as answer:
        url = (await answer.json())["url"]
    job = await running_job(files)
    mine = of_agent(files, job)
    assert await mine.get(url, tmp_path / "in.txt") == 5
    assert (tmp_path / "in.txt").read_bytes() == b"input"
    (tmp_path / "out.bin").write_bytes(b"y" * 60_000)
    kept = await mine.put("an odd/näme.png", tmp_path / "out.bin")
    assert kept.url == "/api/files/job-1/1-an_odd_n_me.png"
    other = await mine.put("an odd?näme.png", b"other")
    assert other.url == "/api/files/job-1/1-2-an_odd_n_me.png"
    async with files.client.get(kept.url) as answer:
        assert await answer.read() == b"y" * 60_000
    assert await mine.get(kept.url, tmp_path / "again") == 60_000


async def test_only_the_running_attempt_keeps_files(files: Served) -> None:
    job = await running_job(files)
    late = ClaimedJob(spec=job.spec, attempt=2, deadline_ms=0)
    with pytest.raises(Conflict, match="attempt 2 of job-1 does not run"):
        await of_agent(files, late).put("a", b"x")
    done = Outcome(job_id=job.spec.job_id, attempt=1, kind=OutcomeKind.COMPLETED)
    await files.plane.claim(done=(done,), want=0)
    with pytest.raises(Conflict):
        await of_agent(files, job).put("a", b"x")
    none = ClaimedJob(spec=JobSpec(job_id=JobId("job-9"), service_required="x"), attempt=1, deadline_ms=0)
    with pytest.raises(NotFound):
        await of_agent(files, none).put("a", b"x")


async def test_a_control_plane_that_is_away_for_a_moment_is_waited_for(files: Served) -> None:
    job = await running_job(files)
    real, tries = HttpFiles(files.url, files.client, lambda: None), list[bytes]()

    class Shaky(HttpFiles):
        async def put_file(self, job_id: Any, attempt: Any, name: Any, data: Any) -> Any:
            tries.append(b"".join([chunk async for chunk in data]))
            if len(tries) < 3:
                raise UpstreamFailed("away")

            async def again() -> AsyncIterator[bytes]:
                yield tries[-1]

            return await real.put_file(job_id, attempt, name, again())

    shaky = AttemptFiles(Shaky("http://x", files.client, lambda: None), job, pauses_s=(0, 0, 0))
    assert (await shaky.put("a", b"content")).bytes == 7
    assert tries == [b"content"] * 3


async def test_an_agent_that_reaches_nobody_says_so(files: Served) -> None:
    job = await running_job(files)
    lost = AttemptFiles(HttpFiles("http://127.0.0.1:9", files.client, lambda: None), job, pauses_s=())
    with pytest.raises(UpstreamFailed, match="cannot be reached"):
        await lost.put("a", b"x")


# --- who sees what ----------------------------------------------------------------------------------------------------


async def test_clients_see_their_own_files_and_jobs_read_no_others(guarded: Served, tmp_path: Path) -> None:
    (mine, my_id), (other, _) = await token_of(guarded, Role.CLIENT), await token_of(guarded, Role.CLIENT, None)
    headers = {"Authorization": f"Bearer {mine}"}
    async with guarded.client.put("/api/files/a.txt", data=b"mine", headers=headers) as answer:
        url = (await answer.json())["url"]
    for token, status in ((mine, 200), (other, 404), ("admin-secret", 200)):
        async with guarded.client.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
            assert answer.status == status
    async with guarded.client.get(url) as answer:
        assert answer.status == 401
    agent, _ = await token_of(guarded, Role.AGENT, "n1")
    job = await running_job(guarded, submitted_by="somebody")
    with pytest.raises(Forbidden, match="not a file of who submitted"):
        await of_agent(guarded, job, agent).get(url, tmp_path / "a")
    assert my_id in url


async def test_a_node_keeps_files_of_its_own_jobs_only(guarded: Served) -> None:
    job = await running_job(guarded)
    (mine, _), (other, _) = await token_of(guarded, Role.AGENT, "n1"), await token_of(guarded, Role.AGENT, "n2")
    assert (await of_agent(guarded, job, mine).put("a", b"x")).bytes == 1
    with pytest.raises(Forbidden):
        await of_agent(guarded, job, other).put("a", b"x")
    client, _ = await token_of(guarded, Role.CLIENT)
    with pytest.raises(Forbidden):
        await of_agent(guarded, job, client).put("a", b"x")


# --- how long ---------------------------------------------------------------------------------------------------------


async def test_files_go_with_their_job_and_what_was_sent_after_its_time(files: Served) -> None:
    service = files.plane.plane.files
    assert service is not None
    job = await running_job(files)
    kept = await of_agent(files, job).put("a", b"x")
    async with files.client.put("/api/files/in", data=b"x") as answer:
        sent = (await answer.json())["url"]
    clock = files.plane.clock
    await service.sweep()
    for url in (kept.url, sent):
        async with files.client.get(url) as answer:
            assert answer.status == 200
    done = Outcome(job_id=job.spec.job_id, attempt=1, kind=OutcomeKind.COMPLETED)
    await files.plane.claim(done=(done,), want=0)
    assert await files.plane.status(job.spec.job_id) is JobStatus.COMPLETED
    await files.plane.store.jobs.purge(clock.now_ms() + 1, 0, 10)
    clock.advance(time.time() + 7200)  # files bear the real time
    await service.sweep()
    for url in (kept.url, sent):
        async with files.client.get(url) as answer:
            assert answer.status == 404


async def test_a_session_of_http_is_not_needed_within_one_process(files: Served) -> None:
    service = files.plane.plane.files
    assert service is not None
    job = await running_job(files)
    mine = AttemptFiles(service, job)
    kept = await mine.put("a.txt", b"text")
    async with aiohttp.ClientSession() as other, other.get(files.url + kept.url) as answer:
        assert await answer.read() == b"text"
