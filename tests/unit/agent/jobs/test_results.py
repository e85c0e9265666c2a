"""Results that are too large to be told."""

from collections.abc import AsyncIterable

from msgspec import Raw

from muster.agent.jobs.files import NoFiles
from muster.domain.file import FileRef
from muster.domain.job import result_file_of
from muster.errors import PayloadTooLarge
from muster.ids import JobId
from muster.wire import Outcome, OutcomeKind
from tests.unit.agent.connectors import FakeConnector
from tests.unit.agent.jobs.test_worker import working
from tests.unit.agent.queues import FakeQueue, WireLink, spec
from tests.unit.agent.virtual_time import in_virtual_time, until


class Shelf(NoFiles):
    """A FileLink that keeps files of so many bytes."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.kept: dict[str, bytes] = {}

    async def put_file(self, job_id: JobId, attempt: int, name: str, data: AsyncIterable[bytes]) -> FileRef:
        content = b"".join([chunk async for chunk in data])
        if len(content) > self.bytes_max:
            raise PayloadTooLarge(f"{name} has more than {self.bytes_max} bytes (setting file_bytes_max)")
        self.kept[name] = content
        return FileRef(name=name, type="", bytes=len(content), sha256="", url=f"/api/files/{job_id}/{attempt}-{name}")


async def outcome_of(payload: str, shelf: Shelf | None) -> Outcome:
    queue = FakeQueue([spec("a", payload=payload)], result_bytes_max=100)
    async with working(WireLink(queue), FakeConnector(), files=shelf):
        await until(lambda: queue.settled)
    return queue.settled[0]


@in_virtual_time
async def test_lesson_a_result_too_large_to_tell_is_kept_as_a_file_and_told_where() -> None:
    shelf = Shelf(bytes_max=1000)
    outcome = await outcome_of("x" * 200, shelf)
    assert outcome.kind is OutcomeKind.COMPLETED
    assert isinstance(outcome.result, Raw)
    file = result_file_of(outcome.result)
    assert file is not None
    assert (file.url, file.bytes) == ("/api/files/a/1-whole-result.json", 211)
    assert shelf.kept == {"whole-result.json": b'{"echo":"' + b"x" * 200 + b'"}'}


@in_virtual_time
async def test_a_result_that_fits_is_told_itself() -> None:
    shelf = Shelf(bytes_max=1000)
    outcome = await outcome_of("x" * 89, shelf)
    assert isinstance(outcome.result, Raw)
    assert len(outcome.result) == 100
    assert result_file_of(outcome.result) is None
    assert shelf.kept == {}


@in_virtual_time
async def test_a_result_too_large_even_for_a_file_fails_for_good_and_names_the_limits() -> None:
    error = (await outcome_of("x" * 200, Shelf(bytes_max=150))).error
    assert error is not None
    assert (error.code, error.retriable) == ("result_too_large", False)
    assert "211 bytes; 100 are told (setting job_result_bytes_max)" in error.message
    assert "more than 150 bytes (setting file_bytes_max)" in error.message


@in_virtual_time
async def test_a_large_result_with_no_way_to_the_files_is_a_failure_that_says_so() -> None:
    error = (await outcome_of("x" * 200, None)).error
    assert error is not None
    assert "no way to the files" in error.message
