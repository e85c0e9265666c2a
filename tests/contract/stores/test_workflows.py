"""A workflow has ended when none of its jobs is open: told once for each time that it comes to that."""

from typing import Any

import pytest

from muster.ids import JobId
from tests.clocks import ManualClock
from tests.contract.stores.world import Hand, Store, again, completed, failed, spec

NAME = 'orders of "acme",\nnumber 7'  # any characters


def step(job_id: str, **fields: Any) -> Any:
    return spec(job_id, **{"workflow_id": NAME} | fields)


async def ends(store: Store) -> list[tuple[str, str, int]]:
    events = [entry.event for entry in await store.log.read("0", 1000)]
    return [(one.kind, one.key, one.data["not_completed"]) for one in events if one.kind.startswith("workflow_")]


COMPLETED, FAILED = ("workflow_completed", NAME, 0), ("workflow_failed", NAME, 1)


async def test_the_end_of_the_last_step_is_the_end_of_the_workflow(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([step("a"), step("b", depends_on=(JobId("a"),)), spec("alone"), step("c")])
    await hand.claims(3)
    await hand.claims(1, completed("a"), completed("alone"), completed("c"))
    assert await ends(store) == []
    await hand.claims(0, completed("b"))
    assert await ends(store) == [COMPLETED]
    await hand.claims(0, completed("b"))  # its answer was lost
    assert await ends(store) == [COMPLETED]


async def test_its_end_is_told_after_that_of_its_last_step(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([step("a")])
    await hand.claims(1)
    await hand.claims(0, completed("a"))
    kinds = [entry.event.kind for entry in await store.log.read("0", 1000)]
    assert kinds[-2:] == ["job_completed", "workflow_completed"]


async def test_steps_that_come_later_open_it_anew_and_it_ends_again(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    for job_id in ("a", "b"):
        await store.jobs.submit([step(job_id)])
        await hand.claims(1)
        await hand.claims(0, completed(job_id))
    assert await ends(store) == [COMPLETED, COMPLETED]
    await store.jobs.submit([step("b")])  # known: nothing was opened
    assert len(await ends(store)) == 2


async def test_lesson_an_attempt_that_is_tried_again_is_no_end(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([step("a")])
    await hand.claims(1)
    await hand.claims(0, again("a", at_ms=clock.now_ms() + 1000))
    assert await ends(store) == []


async def test_a_step_that_fails_takes_with_it_those_that_depend_on_it_and_one_end_is_told(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit(
        [step("a"), step("b", depends_on=(JobId("a"),)), step("c", depends_on=(JobId("b"),))],
    )
    await hand.claims(1)
    await hand.claims(0, failed("a"))
    assert await ends(store) == [("workflow_failed", NAME, 3)]


async def test_a_step_that_can_never_run_ends_it_at_once(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("other")])
    await hand.claims(1)
    await hand.claims(0, failed("other"))
    await store.jobs.submit([step("a", depends_on=(JobId("other"),))])
    assert await ends(store) == [FAILED]


@pytest.mark.parametrize("running", [False, True])
async def test_cancelling_its_last_step_ends_it(store: Store, *, running: bool) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([step("a")])
    await hand.claims(int(running))
    await store.jobs.cancel(JobId("a"))
    assert await ends(store) == [FAILED]


@pytest.mark.parametrize("running", [False, True])
async def test_the_deadline_of_its_last_step_ends_it(store: Store, clock: ManualClock, *, running: bool) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([step("a", deadline_s=5)])
    await hand.claims(int(running))
    clock.advance(5)
    await store.jobs.expire(10)
    assert await ends(store) == [FAILED]


async def test_a_failed_step_that_is_repeated_with_success_makes_it_complete(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([step("a"), step("b")])
    await hand.claims(2)
    await hand.claims(0, failed("a"), failed("b"))
    for job_id in ("a", "b"):
        await store.jobs.revive(JobId(job_id))
        await hand.claims(1)
        await hand.claims(0, completed(job_id, attempt=2))
    assert await ends(store) == [("workflow_failed", NAME, 2), FAILED, COMPLETED]


async def test_what_is_forgotten_leaves_nothing_behind(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    for _ in range(2):
        await store.jobs.submit([step("a")])
        await hand.claims(1)
        await hand.claims(0, failed("a"))
        clock.advance(1)
        assert await store.jobs.purge(clock.now_ms(), 0, 10) == 1
    assert await ends(store) == [FAILED, FAILED]


async def test_a_batch_is_told_of_by_its_own_events_alone(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("batch-x-1", workflow_id="batch-x"), spec("batch-x-2", workflow_id="other")])
    await hand.claims(2)
    await hand.claims(0, completed("batch-x-1"), completed("batch-x-2"))
    assert await ends(store) == [("workflow_completed", "other", 0)]
