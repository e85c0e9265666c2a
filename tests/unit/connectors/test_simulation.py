import asyncio
import random
from typing import Any

import pytest

from muster.connectors.simulation import SimulationConnector
from muster.domain.job import ClaimedJob, JobSpec, Progress
from muster.errors import InvalidInput, MusterError
from muster.ids import JobId
from tests.contract.connectors.makers import NO_FILES


def claimed(payload: Any) -> ClaimedJob:
    return ClaimedJob(
        spec=JobSpec(job_id=JobId("job-1"), service_required="simulation", payload=payload), attempt=1, deadline_ms=0
    )


async def run(payload: Any, report: Any = lambda _: None, seed: int = 0) -> Any:
    return await SimulationConnector(random.Random(seed)).run(claimed(payload), None, report, NO_FILES)


async def test_it_takes_the_time_that_was_ordered_and_returns_the_result() -> None:
    now_s = asyncio.get_running_loop().time
    began_s = now_s()
    assert await run({"duration_ms": 50, "steps": 20, "result": {"n": 1}}) == {"n": 1}
    assert now_s() - began_s >= 0.05


async def test_it_reports_each_step() -> None:
    heard: list[Progress] = []
    await run({"duration_ms": 0, "steps": 4}, heard.append)
    assert [progress.fraction for progress in heard] == [0.25, 0.5, 0.75, 1.0]
    assert heard[0].message == "step 1 of 4"


async def test_a_text_grows_with_the_steps_and_is_the_result() -> None:
    heard: list[Progress] = []
    result = await run({"duration_ms": 0, "steps": 2, "text": "one two"}, heard.append)
    assert [(progress.text, progress.text_at) for progress in heard] == [("one", 0), ("one two", 0)]
    assert result == {"text": "one two"}


async def test_of_a_long_text_the_progress_carries_the_end_and_where_it_begins() -> None:
    heard: list[Progress] = []
    await run({"duration_ms": 0, "steps": 1, "text": "x" * 10_000}, heard.append)
    assert (len(heard[0].text or ""), heard[0].text_at) == (8192, 10_000 - 8192)


async def test_no_payload_is_a_default_one() -> None:
    assert await run(None) is None


async def test_failures_come_as_often_as_ordered_and_the_same_for_the_same_seed() -> None:
    async def outcomes(seed: int) -> list[bool]:
        connector = SimulationConnector(random.Random(seed))
        results = await asyncio.gather(
            *(
                connector.run(claimed({"duration_ms": 0, "steps": 1, "fail_rate": 0.3}), None, lambda _: None, NO_FILES)
                for _ in range(200)
            ),
            return_exceptions=True,
        )
        return [isinstance(result, MusterError) for result in results]

    failed = await outcomes(1)
    assert failed == await outcomes(1)
    assert 30 < sum(failed) < 90


async def test_a_failure_looks_as_ordered() -> None:
    with pytest.raises(MusterError, match="gone wrong") as failed:
        await run({"duration_ms": 0, "error": {"code": "odd", "message": "gone wrong", "retriable": False}})
    assert (failed.value.code, failed.value.retriable) == ("odd", False)


async def test_a_failure_may_be_tried_again_unless_said_otherwise() -> None:
    with pytest.raises(MusterError, match="ordered by the payload") as failed:
        await run({"duration_ms": 0, "fail_rate": 1})
    assert (failed.value.code, failed.value.retriable) == ("simulated_failure", True)


async def test_a_cancelled_job_stops_at_once() -> None:
    began = asyncio.Event()
    task = asyncio.create_task(run({"duration_ms": 80_000_000, "steps": 10_000}, lambda _: began.set()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"duration_ms": "long"}, "payload.duration_ms"),
        ({"duration_ms": -1}, "payload.duration_ms"),
        ({"duration_ms": 1e12}, "payload.duration_ms"),
        ({"steps": 0}, "payload.steps"),
        ({"steps": True}, "payload.steps"),
        ({"fail_rate": 1.5}, "payload.fail_rate"),
        ({"error": {"code": 5}}, "payload.error.code"),
        ({"error": {"why": "x"}}, "payload.error.why"),
        ({"duration": 5}, "payload.duration"),
        ([], "payload"),
        ("x", "payload"),
    ],
)
def test_a_bad_payload_is_refused_with_its_field(payload: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        SimulationConnector.check(payload)
    assert refused.value.field == field
    assert field in refused.value.message


async def test_it_needs_no_service_and_says_it_runs() -> None:
    connector = SimulationConnector(random.Random(0))
    assert not connector.needs_service
    assert (await connector.probe("")).status == "running"
