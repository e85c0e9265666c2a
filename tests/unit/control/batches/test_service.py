"""Batches over the real queue in memory: fed as there is room, gone on with after any end, told once they end."""

import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from muster.access.book import Caller
from muster.access.roles import GRANTS, Role
from muster.connectors.openai import OpenAIConnector
from muster.control.batches.runner import BatchRunner
from muster.control.batches.service import BatchDesk, WantedBatch
from muster.domain.batch import Batch, BatchStatus
from muster.domain.capability import Capability
from muster.domain.job import JobError, JobStatus, encode_result
from muster.errors import BatchNotFound, Conflict, InvalidInput, NotFound, StoreUnavailable
from muster.ids import NodeId, SessionId, WorkerId
from muster.wire import OpenSession, Outcome, OutcomeKind
from tests.planes import PlaneUnderTest, running_plane
from tests.waiting import eventually

CHAT = "/v1/chat/completions"
WORKER = "n1-worker-0"


def caller(name: str, role: Role = Role.CLIENT) -> Caller:
    return Caller(name=name, role=role, rights=GRANTS[role], token_id=name)


ANNA = caller("anna")


class Office:
    """A plane, its batches, and a worker that does what the test says."""

    def __init__(self, plane: PlaneUnderTest) -> None:
        self.plane = plane
        self.room = 100
        self.leads = True
        self.desk = BatchDesk(plane.store.batches, plane.files, plane.store.bus, plane.clock, random.Random(5))

    def runner(self) -> BatchRunner:
        return BatchRunner(
            self.plane.store.batches,
            self.plane.store.log,
            self.plane.store.bus,
            self.plane.jobs,
            self.plane.files,
            self.plane.clock,
            room=lambda _model, _capability: self.room,
            check=OpenAIConnector.check,
            payload_bytes_max=1000,
            retention_s=1000.0,
            leads=lambda: self.leads,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[BatchRunner]:
        runner = self.runner()
        await runner.start()
        try:
            yield runner
        finally:
            await runner.stop()

    async def send(self, count: int, of: Caller = ANNA, window: str = "24h", **fields: Any) -> Batch:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        rows = [{"custom_id": f"c{n}", "method": "POST", "url": CHAT, "body": body} | fields for n in range(count)]

        async def data() -> AsyncIterator[bytes]:
            for row in rows:
                yield json.dumps(row).encode() + b"\n"

        file = await self.desk.send_file(of, "requests.jsonl", "batch", data())
        wanted = WantedBatch(input_file_id=file.file_id, endpoint=CHAT, completion_window=window)
        return await self.desk.create(of, wanted)

    async def work(self, most: int = 1000, fail: Callable[[str], bool] = lambda _: False) -> int:
        """Claim and end jobs until there are no more; return how many."""
        session, worker = SessionId("s1"), WorkerId(WORKER)
        able = Capability(services=("openai",), models=("m",))
        await self.plane.jobs.open_session(
            OpenSession(node_id=NodeId("n1"), worker_id=worker, session_id=session, capability=able)
        )
        done: tuple[Outcome, ...] = ()
        count = 0
        while count < most:
            reply = await self.plane.claim(done=done)
            if not reply.jobs:
                break
            (job,) = reply.jobs
            error = JobError(code="broken", message="it broke", retriable=False) if fail(job.spec.job_id) else None
            outcome = Outcome(
                job_id=job.spec.job_id,
                attempt=job.attempt,
                kind=OutcomeKind.FAILED if error else OutcomeKind.COMPLETED,
                error=error,
                **({} if error else {"result": encode_result({"said": job.spec.job_id})}),
            )
            done, count = (outcome,), count + 1
        await self.plane.claim(want=0, done=done)
        return count

    async def status(self, batch: Batch) -> BatchStatus:
        return (await self.desk.get(caller("root", Role.ADMIN), batch.batch_id)).status

    async def ends(self, batch: Batch, status: BatchStatus) -> Batch:
        async def has_ended() -> bool:
            await self.work()
            found = await self.plane.store.batches.batch(batch.batch_id)
            return found is not None and found.status is status and found.told

        await eventually(has_ended)
        return await self.desk.get(caller("root", Role.ADMIN), batch.batch_id)

    async def rows(self, file_id: str | None) -> list[Any]:
        assert file_id is not None
        file = await self.desk.file(ANNA, file_id)
        text = b"".join([chunk async for chunk in self.desk.content(file)])
        return [json.loads(row) for row in text.splitlines()]

    async def jobs(self) -> int:
        return sum((await self.plane.jobs.counts()).values())

    async def waiting(self) -> int:
        counts = await self.plane.jobs.counts()
        return counts[JobStatus.PENDING] + counts[JobStatus.UNWORKABLE]

    async def kinds(self) -> list[str]:
        return [entry.event.kind for entry in await self.plane.store.log.read("0", 10_000)]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with running_plane(files=tmp_path) as plane:
        yield Office(plane)


async def test_a_batch_is_done_line_by_line(office: Office) -> None:
    async with office.running():
        batch = await office.send(250)
        ended = await office.ends(batch, BatchStatus.COMPLETED)

    assert (ended.total, ended.completed, ended.failed, ended.error_file_id) == (250, 250, 0, None)
    rows = await office.rows(ended.output_file_id)
    assert [row["custom_id"] for row in rows] == [f"c{number}" for number in range(250)]
    assert [row["response"]["body"]["said"] for row in rows] == [f"{batch.batch_id}-{n}" for n in range(1, 251)]
    assert (await office.kinds()).count("batch_completed") == 1


async def test_no_more_is_in_line_than_there_is_room_for(office: Office) -> None:
    office.room = 3
    async with office.running() as runner:
        batch = await office.send(50)
        for _ in range(5):
            await eventually(lambda: _is(office.waiting(), 3))
            assert runner.open_jobs == 3
            assert await office.work(most=2) == 2
        office.room = 0

        async def has_run_dry() -> bool:
            await office.work()
            return runner.open_jobs == 0

        await eventually(has_run_dry)
        before = await office.jobs()
        assert await office.work() == 0
        assert await office.jobs() == before
        office.room = 50
        await office.ends(batch, BatchStatus.COMPLETED)


async def test_several_batches_share_the_room(office: Office) -> None:
    office.room = 4
    async with office.running() as runner:
        batches = [await office.send(10) for _ in range(6)]
        await eventually(lambda: runner.open_jobs == 4)
        for batch in batches:
            await office.ends(batch, BatchStatus.COMPLETED)


async def test_its_successor_goes_on_where_it_was(office: Office) -> None:
    office.room = 120
    async with office.running() as runner:
        batch = await office.send(300)
        await eventually(lambda: runner.open_jobs == 120)
        await office.work(most=110)
        await eventually(lambda: runner.open_jobs == 120)
    await office.work(most=30)
    async with office.running():
        ended = await office.ends(batch, BatchStatus.COMPLETED)

    assert ended.completed == 300
    assert len(await office.rows(ended.output_file_id)) == 300
    assert await office.jobs() == 300  # none was submitted under another name


async def test_only_who_leads_works(office: Office) -> None:
    office.leads = False
    async with office.running() as runner:
        batch = await office.send(5)
        office.leads = True
        await eventually(lambda: runner.open_jobs == 5)
        office.leads = False
        await eventually(lambda: runner.open_jobs == 0)
        office.leads = True
        await office.ends(batch, BatchStatus.COMPLETED)


async def test_failures_are_told_in_the_error_file(office: Office) -> None:
    async with office.running() as runner:
        batch = await office.send(10)
        await eventually(lambda: runner.open_jobs == 10)
        await office.work(fail=lambda job_id: job_id.endswith("-3"))
        ended = await office.ends(batch, BatchStatus.COMPLETED)

    assert (ended.completed, ended.failed) == (9, 1)
    (row,) = await office.rows(ended.error_file_id)
    assert (row["custom_id"], row["error"]) == ("c2", {"code": "broken", "message": "it broke"})


async def test_a_cancelled_batch_keeps_what_it_has_and_takes_back_the_rest(office: Office) -> None:
    office.room = 20
    async with office.running() as runner:
        batch = await office.send(150)
        await eventually(lambda: runner.open_jobs == 20)
        await office.work(most=5)
        assert (await office.desk.cancel(ANNA, batch.batch_id)).status is BatchStatus.CANCELLING
        ended = await office.ends(batch, BatchStatus.CANCELLED)

    answers, errors = await office.rows(ended.output_file_id), await office.rows(ended.error_file_id)
    assert (len(answers), len(errors)) == (ended.completed, ended.failed)
    assert len(answers) + len(errors) == 150
    assert {row["error"]["code"] for row in errors} == {"batch_cancelled"}
    assert await office.work() == 0
    with pytest.raises(Conflict):
        await office.desk.cancel(ANNA, batch.batch_id)


async def test_a_batch_ends_with_its_window(office: Office) -> None:
    office.room = 0
    async with office.running():
        batch = await office.send(3, window="60s")
        await eventually(lambda: _is(office.status(batch), BatchStatus.IN_PROGRESS))
        office.plane.clock.advance(61)
        ended = await office.ends(batch, BatchStatus.EXPIRED)
    assert [row["error"]["code"] for row in await office.rows(ended.error_file_id)] == ["batch_expired"] * 3
    assert (await office.kinds()).count("batch_expired") == 1


async def _is(found: Any, wanted: object) -> bool:
    return bool(await found == wanted)


async def test_a_file_that_cannot_be_fails_with_its_lines(office: Office) -> None:
    async with office.running():
        batch = await office.send(3, method="GET")
        ended = await office.ends(batch, BatchStatus.FAILED)
    assert [(error.line, error.code) for error in ended.errors] == [(n, "invalid_method") for n in (1, 2, 3)]
    assert await office.jobs() == 0


async def test_no_more_errors_are_told_than_anybody_reads(office: Office) -> None:
    async with office.running():
        ended = await office.ends(await office.send(500, method="GET"), BatchStatus.FAILED)
    assert len(ended.errors) == 100


async def test_a_file_that_is_gone_ends_its_batch(office: Office) -> None:
    batch = await office.send(3)
    await office.plane.files.forget(batch.input_place[0])
    async with office.running():
        ended = await office.ends(batch, BatchStatus.FAILED)
    assert [error.code for error in ended.errors] == ["not_found"]


async def test_a_store_that_is_away_for_a_moment_costs_nothing(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    save, failures = office.plane.store.batches.save, [StoreUnavailable("away")]

    async def flaky(batch: Batch) -> None:
        if failures and batch.status is BatchStatus.IN_PROGRESS:
            raise failures.pop()
        await save(batch)

    monkeypatch.setattr(office.plane.store.batches, "save", flaky)
    async with office.running():
        ended = await office.ends(await office.send(5), BatchStatus.COMPLETED)
    assert ended.completed == 5


async def test_an_end_that_was_kept_and_not_told_is_told(office: Office) -> None:
    async with office.running():
        batch = await office.ends(await office.send(1), BatchStatus.COMPLETED)
        await eventually(lambda: _told(office, batch))
    stored = await office.plane.store.batches.batch(batch.batch_id)
    assert stored is not None
    await office.plane.store.batches.save(_untold(stored))
    async with office.running():
        await eventually(lambda: _told(office, batch))
    assert (await office.kinds()).count("batch_completed") == 2


def _untold(batch: Batch) -> Batch:
    return replace(batch, told=False)


async def _told(office: Office, batch: Batch) -> bool:
    found = await office.plane.store.batches.batch(batch.batch_id)
    return found is not None and found.told


async def test_everybody_has_his_own(office: Office) -> None:
    berta, root = caller("berta"), caller("root", Role.ADMIN)
    batch = await office.send(1)

    assert [one.batch_id for one in await office.desk.all(ANNA)] == [batch.batch_id]
    assert [one.batch_id for one in await office.desk.all(root)] == [batch.batch_id]
    assert await office.desk.all(berta) == []
    assert await office.desk.files(berta) == []
    for refused in (office.desk.get(berta, batch.batch_id), office.desk.cancel(berta, batch.batch_id)):
        with pytest.raises(BatchNotFound):
            await refused
    with pytest.raises(NotFound):
        await office.desk.file(berta, batch.input_file_id)
    with pytest.raises(NotFound):
        await office.desk.create(
            berta, WantedBatch(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h")
        )


async def test_a_file_that_is_read_is_not_deleted(office: Office) -> None:
    batch = await office.send(1)
    with pytest.raises(Conflict):
        await office.desk.remove_file(ANNA, batch.input_file_id)
    async with office.running():
        ended = await office.ends(batch, BatchStatus.COMPLETED)
    await office.desk.remove_file(ANNA, batch.input_file_id)
    assert [file.file_id for file in await office.desk.files(ANNA)] == [ended.output_file_id]


@pytest.mark.parametrize("window", ["", "24", "soon", "0h", "8d", "999999d", "24H"])
async def test_windows_are_times(office: Office, window: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await office.send(1, window=window)
    assert caught.value.field == "completion_window"


async def test_what_is_too_old_is_forgotten(office: Office) -> None:
    async with office.running():
        batch = await office.ends(await office.send(1), BatchStatus.COMPLETED)
        await eventually(lambda: _told(office, batch))
    office.plane.clock.advance(2000)
    async with office.running():
        await eventually(lambda: _nothing_left(office))
    assert await office.plane.store.batches.batches() == []


async def _nothing_left(office: Office) -> bool:
    return not await office.desk.files(ANNA) and not await office.plane.store.batches.batches()
