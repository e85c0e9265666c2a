"""Orders for pictures as jobs: what they ask of workers, how they end, and what is left when nobody waits."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from muster.control.images.desk import ImageDesk
from muster.control.images.models import ImageModels
from muster.domain.file import FileRef
from muster.domain.image import ImageOrder, Made
from muster.domain.job import ClaimedJob, JobStatus
from muster.errors import (
    ImageModelBroken,
    InvalidInput,
    MusterError,
    NoWorker,
    QueueFull,
    StoreUnavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from muster.stores.files.directory import DirectoryFiles
from muster.system import system_rng
from tests.artist import CHECKPOINT, Artist, workflow, write_model
from tests.planes import PlaneUnderTest, running_plane
from tests.waiting import eventually

ORDER = ImageOrder(model="one", prompt="a cat")
WAIT_S, TIMEOUT_S = 20.0, 60.0


class Studio:
    def __init__(self, plane: PlaneUnderTest, folder: Path) -> None:
        self.plane = plane
        self.artist = Artist(plane)
        self.desk = ImageDesk(
            ImageModels(folder / "models"),
            plane.jobs,
            lambda: DirectoryFiles(folder / "files"),
            plane.clock,
            system_rng(),
            waiting_max=2,
            wait_s=WAIT_S,
            timeout_s=TIMEOUT_S,
        )

    async def begun(self, order: ImageOrder = ORDER, jobs: int = 1) -> tuple["asyncio.Task[Made]", list[ClaimedJob]]:
        made = asyncio.create_task(self.desk.make(order))
        return made, await self.artist.take(jobs)

    async def all_are(self, status: JobStatus, count: int) -> None:
        async def so() -> bool:
            return (await self.plane.jobs.counts()).get(status, 0) == count

        await eventually(so)


@pytest.fixture
async def empty_studio(tmp_path: Path) -> AsyncIterator[Studio]:
    write_model(tmp_path / "models", "one", workflow())
    write_model(tmp_path / "models", "batch", workflow(batch=True))
    async with running_plane(files=tmp_path / "files") as plane:
        studio = Studio(plane, tmp_path)
        await studio.desk.start()
        yield studio
        await studio.desk.stop()


@pytest.fixture
async def studio(empty_studio: Studio) -> Studio:
    await empty_studio.artist.come()
    return empty_studio


async def failure(made: "asyncio.Task[Made]", kind: type[MusterError]) -> MusterError:
    with pytest.raises(kind) as raised:
        await made
    return raised.value


async def test_an_order_is_a_job_for_who_has_the_checkpoint(studio: Studio) -> None:
    order = replace(ORDER, n=2, size=(640, 320), seed=5, priority=70, owner="t1", correlation_id="req-1")
    made, jobs = await studio.begun(order, jobs=2)
    for number, job in enumerate(jobs):
        spec = job.spec
        assert (spec.service_required, spec.requirements.models) == ("comfyui", (CHECKPOINT,))
        assert (spec.priority, spec.submitted_by, spec.correlation_id) == (70, "t1", "req-1")
        assert (spec.timeout_s, spec.deadline_s) == (TIMEOUT_S, TIMEOUT_S)
        graph = spec.payload["prompt"]
        assert graph["5"]["inputs"] == {"width": 640, "height": 320}
        assert graph["6"]["inputs"] == {"text": "a cat", "seed": 5 + number}
        studio.plane.clock.advance(1.0)
        await studio.artist.done(job, b"picture %d" % number)
    done = await made
    assert [await studio.desk.read(picture) for picture in done.pictures] == [b"picture 0", b"picture 1"]
    assert done.job_ids == tuple(job.spec.job_id for job in jobs)
    assert (done.worker_id, done.worked_ms) == ("n1-worker-0", 3000)


async def test_of_each_job_comes_one_picture_where_each_is_for_one(studio: Studio) -> None:
    made, jobs = await studio.begun(replace(ORDER, n=2), jobs=2)
    for number, job in enumerate(jobs):
        await studio.artist.done(job, b"%d" % number, b"another")
    assert [await studio.desk.read(picture) for picture in (await made).pictures] == [b"0", b"1"]


async def test_pictures_of_one_prompt_are_as_many_as_were_asked_for(studio: Studio) -> None:
    made, (job,) = await studio.begun(replace(ORDER, model="batch", n=2))
    await studio.artist.done(job, b"1", b"2", b"3")
    assert len((await made).pictures) == 2

    made, (job,) = await studio.begun(replace(ORDER, model="batch", n=2))
    await studio.artist.done(job, b"1")
    error = await failure(made, ImageModelBroken)
    assert "kept 1 of 2 pictures" in error.message


async def test_a_model_refuses_what_it_does_not_do_before_there_is_a_job(studio: Studio) -> None:
    with pytest.raises(InvalidInput, match="n must be"):
        await studio.desk.make(replace(ORDER, n=11))
    assert sum((await studio.plane.jobs.counts()).values()) == 0


async def test_what_nobody_can_make_is_refused_at_once_with_what_would_help(empty_studio: Studio) -> None:
    studio = empty_studio
    with pytest.raises(NoWorker, match="once there is a worker that offers the service comfyui") as refused:
        await studio.desk.make(ORDER)
    assert refused.value.retry_after_s == 10.0
    await studio.artist.come("other.safetensors")
    with pytest.raises(NoWorker, match=f"once a worker .* {CHECKPOINT}"):
        await studio.desk.make(ORDER)
    assert sum((await studio.plane.jobs.counts()).values()) == 0


async def test_only_so_many_may_wait(studio: Studio) -> None:
    waiting = [asyncio.create_task(studio.desk.make(ORDER)) for _ in range(2)]
    await studio.all_are(JobStatus.PENDING, 2)
    with pytest.raises(QueueFull, match="gateway_waiting_max"):
        await studio.desk.make(ORDER)
    for one in waiting:
        one.cancel()
    await studio.all_are(JobStatus.CANCELLED, 2)


async def test_jobs_that_nobody_waits_for_are_cancelled(studio: Studio) -> None:
    made, (job,) = await studio.begun(replace(ORDER, n=2))
    made.cancel()
    await studio.all_are(JobStatus.CANCELLED, 2)
    assert await studio.plane.status(job.spec.job_id) is JobStatus.CANCELLED


@pytest.mark.parametrize(("code", "kind"), [("invalid_input", InvalidInput), ("upstream_failed", UpstreamFailed)])
async def test_a_job_that_fails_tells_why_and_takes_the_others_along(
    studio: Studio, code: str, kind: type[MusterError]
) -> None:
    made, (job,) = await studio.begun(replace(ORDER, n=2))
    await studio.artist.fail(job, code, "node 5 failed")
    error = await failure(made, kind)
    assert (type(error), error.message) == (kind, "one: node 5 failed")
    await studio.all_are(JobStatus.CANCELLED, 1)


async def test_a_job_that_somebody_cancels_is_no_picture(studio: Studio) -> None:
    made, (job,) = await studio.begun()
    await studio.plane.jobs.cancel(job.spec.job_id)
    assert "was cancelled" in (await failure(made, UpstreamFailed)).message


async def test_who_is_not_begun_with_hears_why(studio: Studio) -> None:
    made = asyncio.create_task(studio.desk.make(ORDER))
    await studio.all_are(JobStatus.PENDING, 1)
    studio.plane.clock.advance(WAIT_S)
    error = await failure(made, NoWorker)
    assert error.message.startswith("nobody began with it for 20 s: ")
    await studio.all_are(JobStatus.CANCELLED, 1)


async def test_what_takes_too_long_is_given_up(studio: Studio) -> None:
    made, _ = await studio.begun()
    studio.plane.clock.advance(TIMEOUT_S)
    assert "image_timeout_s" in (await failure(made, UpstreamTimeout)).message
    await studio.all_are(JobStatus.CANCELLED, 1)


async def test_the_jobs_own_deadline_is_told_the_same(studio: Studio) -> None:
    made, _ = await studio.begun()
    studio.desk._timeout_s *= 2
    studio.plane.clock.advance(TIMEOUT_S + 1)
    await studio.plane.sweep.sweep_jobs()
    assert "not ready after 60 s" in (await failure(made, UpstreamTimeout)).message


async def test_a_store_that_is_away_for_a_moment_ends_no_wait(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    made, (job,) = await studio.begun()
    away = asyncio.Event()

    async def fail(_: object) -> list[object]:
        away.set()
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(studio.plane.jobs, "get_many", fail)
        await away.wait()
    await studio.artist.done(job, b"picture")
    assert len((await made).pictures) == 1


async def test_a_picture_that_is_kept_elsewhere_says_what_to_set(studio: Studio) -> None:
    gone = FileRef(name="a.png", type="image/png", bytes=1, sha256="", url="/api/files/job-1/1-a.png")
    with pytest.raises(UpstreamFailed, match="file_store_url"):
        await studio.desk.read(gone)
