"""Jobs that wait for their time or for others, and those whose own time is over."""

from typing import Any

import pytest

from muster.domain.job import JobStatus
from muster.errors import InvalidInput
from muster.ids import JobId
from tests.clocks import ManualClock
from tests.contract.stores.world import Hand, Store, again, completed, failed, job, spec, status

# --- time -------------------------------------------------------------------------------------------------------------


async def test_a_job_for_later_is_in_line_when_its_time_has_come(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    run_at = clock.now_ms() + 5000
    await store.jobs.submit([spec("later", run_at=run_at), spec("now", run_at=clock.now_ms())])
    state = (await job(store, "later")).state
    assert (state.status, state.next_attempt_at) == (JobStatus.PENDING, run_at)
    assert await store.jobs.position(JobId("later")) is None
    assert await hand.gets(5) == ["now"]
    clock.advance(5)
    assert await store.jobs.promote(10) == 1
    assert (await job(store, "later")).state.next_attempt_at is None
    assert await hand.gets(5) == ["later"]


async def test_a_job_for_later_comes_behind_those_who_waited_before_it(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("later", run_at=clock.now_ms() + 1000), spec("a")])
    await store.jobs.submit([spec("b")])
    clock.advance(1)
    await store.jobs.promote(10)
    await store.jobs.submit([spec("c")])
    assert await hand.gets(5) == ["a", "b", "later", "c"]
    await hand.claims(0, again("later"))
    await store.jobs.submit([spec("d")])
    assert await hand.gets(5) == ["later", "d"]


async def test_a_job_whose_time_has_not_come_can_be_cancelled_and_revived(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x", run_at=clock.now_ms() + 1000)])
    ended = await store.jobs.cancel(JobId("x"))
    assert (ended.state.status, ended.state.next_attempt_at) == (JobStatus.CANCELLED, None)
    clock.advance(1)
    assert await store.jobs.promote(10) == 0
    await store.jobs.revive(JobId("x"))
    assert await hand.gets(5) == ["x"]


@pytest.mark.parametrize("state", ["pending", "delayed", "blocked", "assigned"])
async def test_lesson_the_time_limit_of_a_job_ends_it_waiting_or_running(
    store: Store, clock: ManualClock, state: str
) -> None:
    hand = await Hand(store, "n").opens()
    more: dict[str, Any] = {}
    if state == "delayed":
        more = {"run_at": clock.now_ms() + 50_000}
    elif state == "blocked":
        await store.jobs.submit([spec("other", service_required="images")])
        more = {"depends_on": (JobId("other"),)}
    await store.jobs.submit([spec("x", deadline_s=10, **more), spec("free", service_required="images")])
    if state == "assigned":
        await hand.claims(1)
    clock.advance(9.9)
    assert (await store.jobs.expire(10)).jobs == ()
    clock.advance(0.1)
    expired = await store.jobs.expire(10)
    assert (expired.jobs, expired.more) == ((("x", hand.worker if state == "assigned" else None),), False)
    found = (await job(store, "x")).state
    assert (found.status, found.completed_at) == (JobStatus.TIMEOUT, clock.now_ms())
    assert found.error is not None
    assert (found.error.code, found.next_attempt_at, found.waiting_for) == ("deadline_exceeded", None, 0)
    assert (await hand.claims(5, completed("x"))).refused == ("x",)
    clock.advance(60)
    assert (await store.jobs.expire(10)).jobs == ()
    assert await store.jobs.promote(10) == 0
    kinds = [(entry.event.kind, entry.event.key) for entry in await store.log.read("0", 100)]
    assert kinds.count(("job_timeout", "x")) == 1


async def test_a_job_that_ended_in_time_is_left_alone_and_a_revived_one_has_its_time_anew(
    store: Store, clock: ManualClock
) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("done", deadline_s=10), spec("bad", deadline_s=10)])
    await hand.claims(2)
    await hand.claims(0, completed("done"), failed("bad"))
    clock.advance(8)
    await store.jobs.revive(JobId("bad"))
    clock.advance(5)
    assert (await store.jobs.expire(10)).jobs == ()
    clock.advance(5)
    assert [name for name, _ in (await store.jobs.expire(10)).jobs] == ["bad"]
    assert await status(store, "done") is JobStatus.COMPLETED


async def test_a_new_job_does_not_inherit_the_deadline_of_one_that_was_purged(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x", deadline_s=10)])
    await hand.claims(1)
    await hand.claims(0, completed("x"))
    assert await store.jobs.purge(clock.now_ms() + 1, 0, 10) == 1
    await store.jobs.submit([spec("x")])
    clock.advance(60)
    assert (await store.jobs.expire(10)).jobs == ()


# --- others -----------------------------------------------------------------------------------------------------------


async def test_a_job_starts_when_all_that_it_depends_on_are_completed(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("a"), spec("b"), spec("c", depends_on=("a", "b")), spec("d")])
    state = (await job(store, "c")).state
    assert (state.status, state.waiting_for) == (JobStatus.PENDING, 2)
    assert await hand.gets(5) == ["a", "b", "d"]
    await hand.claims(0, completed("a"), failed("d"))
    assert (await job(store, "c")).state.waiting_for == 1
    assert await hand.gets(5) == []
    assert await hand.gets(5, completed("b")) == ["c"]
    assert (await job(store, "c")).state.waiting_for == 0


async def test_what_is_over_already_is_not_waited_for(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("a"), spec("bad")])
    await hand.claims(2)
    await hand.claims(0, completed("a"), failed("bad"))
    await store.jobs.submit([spec("b", depends_on=("a",)), spec("c", depends_on=("bad",), on_failure="run")])
    assert await hand.gets(5) == ["b", "c"]


@pytest.mark.parametrize("how", ["failed", "cancelled", "timeout", "before"])
async def test_a_job_fails_with_what_it_depends_on_and_so_do_those_behind_it(
    store: Store, clock: ManualClock, how: str
) -> None:
    hand = await Hand(store, "n").opens()
    rest = [spec("b", depends_on=("a",)), spec("c", depends_on=("b",)), spec("d", depends_on=("b",), on_failure="run")]
    await store.jobs.submit([spec("a", deadline_s=5), *([] if how == "before" else rest)])
    if how == "cancelled":
        await store.jobs.cancel(JobId("a"))
    elif how == "timeout":
        clock.advance(5)
        await store.jobs.expire(10)
    else:
        await hand.claims(1)
        await hand.claims(0, failed("a"))
    if how == "before":
        await store.jobs.submit(rest)
    for name, because in (("b", "a"), ("c", "b")):
        state = (await job(store, name)).state
        assert state.status is JobStatus.FAILED
        assert state.error is not None
        ended_as = {"a": "failed" if how == "before" else how, "b": "failed"}[because]
        assert (state.error.code, state.error.retriable) == ("dependency_failed", False)
        assert state.error.message == f"job {because}, which it depends on, ended as {ended_as}"
        assert (state.completed_at, state.waiting_for) == (clock.now_ms(), 0)
    assert await hand.gets(5) == ["d"]
    told = [entry.event for entry in await store.log.read("0", 100) if entry.event.key in ("b", "c")]
    assert [(event.kind, event.data) for event in told if event.kind == "job_failed"] == [
        ("job_failed", {"codes": ["dependency_failed"]})
    ] * 2


async def test_a_failed_attempt_with_retries_left_fails_nobody(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("a"), spec("b", depends_on=("a",))])
    await hand.claims(1)
    await hand.claims(0, again("a"))
    assert (await job(store, "b")).state.waiting_for == 1
    assert await hand.gets(5) == ["a"]
    assert await hand.gets(5, completed("a", 2)) == ["b"]


async def test_a_dependent_keeps_the_place_of_its_submit_and_its_own_time(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    later = spec("later", depends_on=("a",), run_at=clock.now_ms() + 1000)
    await store.jobs.submit([spec("a"), spec("b", depends_on=("a",)), later, spec("c")])
    assert await hand.gets(1) == ["a"]
    assert await hand.gets(1, completed("a")) == ["b"]
    assert (await job(store, "later")).state.waiting_for == 0
    assert await hand.gets(5) == ["c"]
    clock.advance(1)
    assert await store.jobs.promote(5) == 1
    assert await hand.gets(5) == ["later"]


async def test_what_does_not_exist_cannot_be_depended_on_and_nothing_is_stored(store: Store) -> None:
    with pytest.raises(InvalidInput) as caught:
        await store.jobs.submit([spec("a"), spec("b", depends_on=("a", "none"))])
    assert (caught.value.field, "none" in caught.value.message) == ("depends_on", True)
    with pytest.raises(InvalidInput):  # nor can it be submitted later: so there are no circles
        await store.jobs.submit([spec("b", depends_on=("a",)), spec("a")])
    assert await store.jobs.get([JobId("a"), JobId("b")]) == [None, None]


async def test_a_known_job_is_not_judged_by_its_dependencies_again(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("a"), spec("b", depends_on=("a",))])
    await hand.claims(1)
    await hand.claims(0, completed("a"))
    assert await store.jobs.purge(clock.now_ms() + 1, 0, 10) == 1
    assert [entry.created for entry in await store.jobs.submit([spec("b", depends_on=("a",))])] == [False]


async def test_a_waiting_dependent_can_be_cancelled_and_a_revived_one_waits_again(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("a"), spec("b", depends_on=("a",)), spec("c", depends_on=("b",))])
    await store.jobs.cancel(JobId("b"))
    assert await status(store, "c") is JobStatus.FAILED
    revived = await store.jobs.revive(JobId("b"))
    assert (revived.state.status, revived.state.waiting_for) == (JobStatus.PENDING, 1)
    await store.jobs.revive(JobId("c"))
    assert await hand.gets(5) == ["a"]
    assert await hand.gets(5, completed("a")) == ["b"]
    assert await hand.gets(5, completed("b")) == ["c"]


async def test_a_revived_job_fails_again_as_long_as_what_it_depends_on_is_failed(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("a"), spec("b", depends_on=("a",))])
    await hand.claims(1)
    await hand.claims(0, failed("a"))
    assert (await store.jobs.revive(JobId("b"))).state.status is JobStatus.FAILED
    await store.jobs.revive(JobId("a"))
    await store.jobs.revive(JobId("b"))
    assert await hand.gets(5) == ["a"]
    assert await hand.gets(5, completed("a", 2)) == ["b"]


async def test_thousands_can_wait_for_one_job(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    names = [f"j{number:04}" for number in range(2500)]
    await store.jobs.submit([spec("first")])
    await store.jobs.submit([spec(name, depends_on=("first",)) for name in names])
    await hand.claims(1)
    await hand.claims(0, completed("first"))
    while await store.jobs.promote(500):
        pass
    taken: list[str] = []
    while got := await hand.gets(1000):
        taken += got
    assert taken == names


async def test_waiting_jobs_are_counted_and_listed_as_pending(store: Store, clock: ManualClock) -> None:
    await Hand(store, "n").opens()
    await store.jobs.submit(
        [spec("a"), spec("b", depends_on=("a",)), spec("later", run_at=clock.now_ms() + 1000), spec("c")]
    )
    counts = await store.jobs.counts()
    assert (counts[JobStatus.PENDING], counts[JobStatus.UNWORKABLE]) == (4, 0)
    page = await store.jobs.page(JobStatus.PENDING, None, 10)
    assert ([found.job_id for found in page.jobs], page.total) == (["a", "c", "later", "b"], 4)
    assert [found.job_id for found in (await store.jobs.page(None, None, 10)).jobs] == ["a", "c", "later", "b"]
