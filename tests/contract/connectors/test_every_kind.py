"""What every connector must do, as the agent drives it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from muster.agent.jobs.attempt import run_attempt
from muster.agent.jobs.offer import Means, Tool, make_offer
from muster.agent.services.look import look
from muster.connectors.catalog import BUILT_IN_NAMES, job_kinds
from muster.domain.job import ClaimedJob, JobSpec, Progress, result_file_of
from muster.domain.service import ServiceStatus
from muster.errors import InvalidInput, UpstreamFailed
from muster.ids import JobId
from muster.wire import Outcome, OutcomeKind
from tests.contract.connectors.makers import KeptFiles
from tests.contract.connectors.rigs import KINDS, Rig
from tests.waiting import eventually

RESULT_BYTES_MAX = 1_000_000
SAYS_NOTHING_YET = {"http once"}  # an answer that has not come says nothing of how far it is


@pytest.fixture(params=list(KINDS))
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with KINDS[request.param](tmp_path) as rig:
        yield rig


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["rig"])


def job(rig: Rig, payload: Any, timeout_s: float = 3600.0) -> ClaimedJob:
    spec = JobSpec(job_id=JobId("job-1"), service_required=rig.job_service, payload=payload, timeout_s=timeout_s)
    return ClaimedJob(spec=spec, attempt=1, deadline_ms=0)


def begin(rig: Rig, claimed: ClaimedJob, heard: list[Progress]) -> asyncio.Task[Outcome]:
    tool = Tool(rig.connector, rig.service)
    return asyncio.create_task(run_attempt(claimed, tool, heard.append, KeptFiles(), RESULT_BYTES_MAX))


async def under_way(rig: Rig, kind: str, heard: list[Progress], task: asyncio.Task[Outcome]) -> None:
    """Wait until it has told of its work, or the service has begun it where it cannot tell."""
    if kind in SAYS_NOTHING_YET and rig.begun is not None:
        await asyncio.wait_for(rig.begun.wait(), 20)
    else:
        await eventually(lambda: bool(heard) or task.done(), 20)
    assert not task.done(), task.result()


def test_none_is_left_out() -> None:
    tried = {name.partition(" ")[0] for name in KINDS}
    assert set(BUILT_IN_NAMES) - tried == {"llamacpp", "vllm"}  # OpenAI's with another look


async def test_a_payload_is_checked_and_described(rig: Rig) -> None:
    for payload in filter(None, (rig.instant, rig.long, rig.big)):
        rig.connector.check(payload)
    with pytest.raises(InvalidInput) as refused:
        rig.connector.check(rig.bad)
    assert (refused.value.field or "").startswith("payload")
    assert json.loads(msgspec.json.encode(rig.connector.schema()))
    shown = {kind.name: kind.schema for kind in job_kinds()}
    assert shown[rig.connector.name.partition(":")[0]] == rig.connector.schema()


async def test_what_is_done_at_once_has_its_result(rig: Rig) -> None:
    outcome = await asyncio.wait_for(begin(rig, job(rig, rig.instant), []), 20)
    assert outcome.kind is OutcomeKind.COMPLETED, outcome
    assert outcome.result


async def test_progress_comes_before_the_end_and_never_goes_back(rig: Rig, kind: str) -> None:
    heard: list[Progress] = []
    task = begin(rig, job(rig, rig.long), heard)
    await under_way(rig, kind, heard, task)
    fractions = [progress.fraction for progress in heard if progress.fraction is not None]
    assert fractions == sorted(fractions)
    assert all(0 <= fraction <= 1 for fraction in fractions)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_cancel_frees_the_slot_within_a_second(rig: Rig, kind: str) -> None:
    heard: list[Progress] = []
    task = begin(rig, job(rig, rig.long), heard)
    await under_way(rig, kind, heard, task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1.0)


async def test_a_deadline_ends_it(rig: Rig) -> None:
    outcome = await asyncio.wait_for(begin(rig, job(rig, rig.long, timeout_s=0.3), []), 20)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.retriable) == ("timed_out", True)


async def test_a_service_that_dies_in_mid_job_is_worth_another_attempt(rig: Rig, kind: str) -> None:
    if rig.die is None:
        return  # nothing but us does the work
    heard: list[Progress] = []
    task = begin(rig, job(rig, rig.long), heard)
    await under_way(rig, kind, heard, task)
    await rig.die()
    outcome = await asyncio.wait_for(task, 20)
    assert outcome.error is not None
    assert outcome.error.retriable, outcome.error


async def test_a_result_that_is_too_large_becomes_a_file_or_is_told_and_not_tried_again(rig: Rig) -> None:
    if rig.big is None:
        return  # its results are small by nature: what is large are files
    outcome = await asyncio.wait_for(begin(rig, job(rig, rig.big), []), 60)
    if outcome.error is not None:  # beyond what the connector itself takes in
        assert not outcome.error.retriable
        assert "bytes" in outcome.error.message
        return
    assert isinstance(outcome.result, msgspec.Raw)
    kept = result_file_of(outcome.result)
    assert kept is not None
    assert kept.bytes > RESULT_BYTES_MAX


async def test_lesson_a_service_is_offered_only_while_it_answers(rig: Rig) -> None:
    if rig.service is None or rig.die is None or rig.revive is None:
        assert not rig.connector.needs_service
        return
    url = rig.service.url or ""
    seen = await look(rig.connector, url)
    connectors = {rig.connector.name: rig.connector}
    assert rig.job_service in make_offer(connectors, [seen], Means()).capability.services
    await rig.die()
    with pytest.raises(UpstreamFailed):
        await look(rig.connector, url)
    gone = msgspec.structs.replace(seen, status=ServiceStatus.UNHEALTHY)
    assert make_offer(connectors, [gone], Means()).capability.services == ()
    await rig.revive()
    assert (await look(rig.connector, url)).status is ServiceStatus.RUNNING
