"""Leases, fencing, retries: each job has exactly one end, and a late word changes nothing."""

import asyncio

import pytest
from msgspec import UNSET, Raw

from muster.domain.capability import Capability
from muster.domain.job import JobState, JobStatus, Progress
from muster.errors import InvalidInput, InvalidTransition, JobNotFound
from muster.ids import JobId, WorkerId
from muster.wire import ProgressReport
from tests.clocks import ManualClock
from tests.contract.stores.world import BIG, LEASE_S, Hand, Store, again, completed, failed, job, needing, spec, status


def report(job_id: str, attempt: int = 1, fraction: float = 0.5) -> ProgressReport:
    progress = Progress(fraction=fraction, message="half", at_ms=7)
    return ProgressReport(job_id=JobId(job_id), attempt=attempt, progress=progress)


async def test_a_claim_leases_the_job_and_its_result_ends_it(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x", payload={"deep": [1, None, "é"]}, timeout_s=60)])
    assert (await job(store, "x")).state == JobState()
    (given,) = (await hand.claims(1)).jobs
    assert (given.attempt, given.deadline_ms) == (1, clock.now_ms() + 60_000)
    assert given.spec.payload == {"deep": [1, None, "é"]}
    started_at = clock.now_ms()
    assert (await job(store, "x")).state == JobState(
        status=JobStatus.ASSIGNED, attempt=1, worker_id=hand.worker, session_id=hand.session, started_at=started_at
    )
    clock.advance(2)
    claimed = await hand.claims(1, completed("x", result={"n": 1}))
    assert (claimed.jobs, claimed.refused, claimed.session_known) == ((), (), True)
    assert (await job(store, "x")).state == JobState(
        status=JobStatus.COMPLETED,
        attempt=1,
        worker_id=hand.worker,
        session_id=hand.session,
        started_at=started_at,
        completed_at=clock.now_ms(),
        result=Raw(b'{"n":1}'),
    )


async def test_progress_starts_a_job_and_is_kept(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x"), spec("y")])
    await hand.claims(2)
    clock.advance(1)
    assert await store.jobs.record_progress(hand.session, [report("x"), report("y", attempt=2)]) == ["y"]
    state = (await job(store, "x")).state
    assert state.status is JobStatus.IN_PROGRESS
    assert state.progress == Progress(fraction=0.5, message="half", at_ms=clock.now_ms())
    assert await status(store, "y") is JobStatus.ASSIGNED
    await store.jobs.record_progress(hand.session, [report("x", fraction=0.9)])
    await hand.claims(0, completed("x"))
    state = (await job(store, "x")).state
    assert (state.status, state.progress and state.progress.fraction) == (JobStatus.COMPLETED, 0.9)
    assert await store.jobs.record_progress(hand.session, [report("x"), report("x")]) == ["x"]


async def test_lesson_a_failure_is_kept_with_its_words(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x")])
    await hand.claims(1)
    await hand.claims(0, failed("x", code="bad_prompt"))
    state = (await job(store, "x")).state
    assert state.status is JobStatus.FAILED
    assert state.error is not None
    assert (state.error.code, state.error.message, state.error.retriable) == ("bad_prompt", "it was bad_prompt", False)


async def test_lesson_a_result_that_is_too_large_is_a_failure(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x"), spec("y")])
    await hand.claims(2)
    large = completed("x", result="x" * 2000)
    assert (await hand.claims(0, large, completed("y", result="x" * 900))).refused == ()
    state = (await job(store, "x")).state
    assert (state.status, state.result) == (JobStatus.FAILED, UNSET)
    assert state.error is not None
    assert state.error.code == "result_too_large"
    assert await status(store, "y") is JobStatus.COMPLETED
    assert (await hand.claims(0, large)).refused == ()


async def test_lesson_a_repeated_report_is_harmless(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x"), spec("y")])
    await hand.claims(2)
    for _ in range(2):
        claimed = await hand.claims(0, completed("x", result=1), again("y"), completed("x", result=1))
        assert claimed.refused == ()
    assert (await job(store, "x")).state.result == Raw(b"1")
    assert (await job(store, "y")).state.retry_count == 1
    kinds = [entry.event.kind for entry in await store.log.read("0", 100)]
    assert kinds.count("job_completed") == kinds.count("job_retrying") == 1
    assert "job_refused" not in kinds


async def test_lesson_a_late_result_of_a_lost_lease_is_refused_and_recorded(store: Store, clock: ManualClock) -> None:
    late, other = await Hand(store, "late").opens(), Hand(store, "other")
    await store.jobs.submit([spec("x")])
    await late.claims(1)
    clock.advance(LEASE_S + 1)
    (lease,) = await store.jobs.overdue(10)
    assert (lease.spec.job_id, lease.attempt, lease.retry_count, lease.expired) == ("x", 1, 0, "session")
    assert (lease.worker_id, lease.session_id) == (late.worker, late.session)
    assert await store.jobs.settle([again("x")]) == [True]
    assert await (await other.opens()).gets(1) == ["x"]
    claimed = await late.claims(1, completed("x", result="late"))
    assert (claimed.refused, claimed.jobs) == (("x",), ())
    assert await status(store, "x") is JobStatus.ASSIGNED
    (told,) = [entry.event for entry in await store.log.read("0", 100) if entry.event.kind == "job_refused"]
    assert (told.key, told.data) == ("x", {"worker_id": late.worker, "attempts": [1]})
    await other.claims(0, completed("x", attempt=2, result="in time"))
    assert (await job(store, "x")).state.result == Raw(b'"in time"')


async def test_an_older_attempt_of_the_same_session_does_not_count(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x")])
    await hand.claims(1)
    await store.jobs.settle([again("x")])
    (given,) = (await hand.claims(1)).jobs
    assert given.attempt == 2
    assert (await hand.claims(0, completed("x", attempt=1))).refused == ("x",)
    assert await status(store, "x") is JobStatus.ASSIGNED
    assert (await hand.claims(0, completed("x", attempt=2))).refused == ()


async def test_two_words_about_one_job_are_judged_each_by_its_attempt(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x")])
    await hand.claims(1)
    await store.jobs.settle([again("x")])
    await hand.claims(1)
    claimed = await hand.claims(0, failed("x", attempt=2), failed("x", attempt=1), failed("x", attempt=2))
    assert claimed.refused == ("x",)
    assert await status(store, "x") is JobStatus.FAILED


async def test_only_the_running_attempt_can_be_settled_from_outside(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x"), spec("y")])
    await hand.claims(1)
    late = failed("x", attempt=2)
    assert await store.jobs.settle([late, failed("y"), failed("none"), failed("x"), failed("x")]) == [
        False,
        False,
        False,
        True,
        False,
    ]
    assert await store.jobs.settle([failed("x")]) == [False]
    assert await store.jobs.settle([]) == []


async def test_lesson_a_retry_keeps_its_place_in_line(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("first"), spec("second"), spec("urgent", priority=90)])
    assert await hand.gets(2) == ["urgent", "first"]
    await store.jobs.submit([spec("third")])
    await hand.claims(0, again("first"), again("urgent"))
    state = (await job(store, "first")).state
    assert (state.status, state.attempt, state.retry_count) == (JobStatus.PENDING, 1, 1)
    assert (state.worker_id, state.session_id, state.started_at) == (None, None, None)
    assert state.error is not None
    assert await hand.gets(9) == ["urgent", "first", "second", "third"]
    await hand.claims(0, completed("first", attempt=2))
    assert (await job(store, "first")).state.error is None


async def test_a_retry_waits_for_its_time(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x"), spec("y")])
    await hand.claims(1)
    await hand.claims(0, again("x", at_ms=clock.now_ms() + 2000))
    state = (await job(store, "x")).state
    assert (state.status, state.next_attempt_at) == (JobStatus.PENDING, clock.now_ms() + 2000)
    assert await store.jobs.position(JobId("x")) is None
    assert await store.jobs.promote(10) == 0
    assert await hand.gets(1) == ["y"]
    clock.advance(2)
    assert await store.jobs.promote(10) == 1
    assert await store.jobs.promote(10) == 0
    assert (await job(store, "x")).state.next_attempt_at is None
    assert await hand.gets(1) == ["x"]


async def test_lesson_the_worker_that_failed_a_job_is_left_out_while_others_can_run_it(
    store: Store, clock: ManualClock
) -> None:
    bad, good = await Hand(store, "bad").opens(), await Hand(store, "good").opens()
    await store.jobs.submit([spec("x"), needing("next")])
    await bad.claims(1)
    await bad.claims(0, again("x", avoid=bad.worker))
    assert (await job(store, "x")).state.avoid_worker == bad.worker
    assert await store.jobs.position(JobId("x")) == 0
    assert await bad.gets(5) == ["next"]
    assert await good.gets(5) == ["x"]
    assert (await job(store, "x")).state.avoid_worker is None


async def test_leaving_a_worker_out_has_an_end(store: Store, clock: ManualClock) -> None:
    bad, good = await Hand(store, "bad").opens(), await Hand(store, "good").opens()
    await store.jobs.submit([spec("x"), spec("y")])
    await bad.claims(2)
    await bad.claims(0, again("x", avoid=bad.worker, at_ms=clock.now_ms() + 1000), again("y", avoid=bad.worker))
    clock.advance(1)
    assert await store.jobs.promote(10) == 1
    assert await bad.gets(5) == []
    clock.advance(29)
    await asyncio.gather(bad.renews(), good.renews())
    assert await store.jobs.promote(10) == 1
    assert await bad.gets(5) == ["y"]
    clock.advance(1)
    assert await store.jobs.promote(1) == 1
    assert await bad.gets(5) == ["x"]


async def test_the_only_worker_gets_its_retry_at_once(store: Store) -> None:
    hand, other = await Hand(store, "n").opens(), await Hand(store, "m", Capability(services=("images",))).opens()
    await store.jobs.submit([spec("x")])
    await hand.claims(1)
    await hand.claims(0, again("x", avoid=hand.worker))
    assert await other.gets(1) == []
    assert await hand.gets(1) == ["x"]


async def test_a_restarted_worker_is_not_taken_for_another_one(store: Store, clock: ManualClock) -> None:
    before, after = await Hand(store, "n", session="before").opens(), Hand(store, "n", session="after")
    await store.jobs.submit([spec("x")])
    await before.claims(1)
    clock.advance(LEASE_S)
    await after.opens()
    (lease,) = await store.jobs.overdue(10)
    await store.jobs.settle([again("x", avoid=lease.worker_id)])
    assert await after.gets(1) == ["x"]


async def test_a_class_that_joins_later_gets_retries_that_leave_out_another_worker(store: Store) -> None:
    bad, good = await Hand(store, "bad").opens(), await Hand(store, "good").opens()
    await store.jobs.submit([spec("x"), spec("y", priority=60)])
    await bad.claims(2)
    await bad.claims(0, again("x", avoid=bad.worker), again("y", avoid=bad.worker))
    assert await (await Hand(store, "late", BIG).opens()).gets(1) == ["y"]
    assert await good.gets(5) == ["x"]
    assert await bad.gets(5) == []


async def test_lesson_jobs_given_back_politely_do_not_count_as_retries(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x")])
    await hand.claims(1)
    await hand.claims(0, again("x", counts=False))
    state = (await job(store, "x")).state
    assert (state.status, state.attempt, state.retry_count, state.error) == (JobStatus.PENDING, 1, 0, None)


async def test_a_lost_claim_reply_gives_the_jobs_back(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("known"), spec("unheard")])
    await hand.claims(2)
    renewed = await hand.renews(("known", 1))
    assert (renewed.returned, renewed.lost, renewed.session_known) == ((), (), True)
    clock.advance(6)
    assert (await hand.renews(("known", 1))).returned == ("unheard",)
    assert (await job(store, "unheard")).state.retry_count == 0
    assert await status(store, "known") is JobStatus.ASSIGNED
    (given,) = (await hand.claims(1)).jobs
    assert (given.spec.job_id, given.attempt) == ("unheard", 2)


async def test_renewing_tells_what_was_lost(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x"), spec("y"), spec("z")])
    await hand.claims(3)
    await store.jobs.cancel(JobId("x"))
    await store.jobs.settle([again("y")])
    await hand.claims(1)
    assert (await hand.renews(("x", 1), ("y", 1), ("y", 2), ("z", 1), ("none", 1))).lost == ("x", "none")
    assert (await hand.renews(("y", 1), ("z", 1))).lost == ("y",)


async def test_a_session_lives_by_claims_and_renewals(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x")])
    await hand.claims(1)
    for _ in range(3):
        clock.advance(LEASE_S - 1)
        await hand.renews(("x", 1))
        clock.advance(LEASE_S - 1)
        await hand.claims(0)
    assert await store.jobs.overdue(10) == []
    clock.advance(LEASE_S)
    assert len(await store.jobs.overdue(10)) == 1
    # Late but before anybody acted on it: the worker keeps its job.
    assert (await hand.renews(("x", 1))).session_known
    assert await store.jobs.overdue(10) == []


async def test_a_session_that_was_silent_for_too_long_is_unknown(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    clock.advance(LEASE_S)
    assert await store.jobs.overdue(10) == []
    claimed = await hand.claims(1, completed("none"))
    assert (claimed.session_known, claimed.refused) == (False, ("none",))
    renewed = await hand.renews(("x", 1))
    assert (renewed.session_known, renewed.lost) == (False, ("x",))
    assert [entry.sessions for entry in await store.jobs.classes()] == [0]
    await hand.opens()
    assert (await hand.claims(1)).session_known


async def test_each_attempt_has_a_deadline_of_its_own(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("short", timeout_s=20), spec("long", timeout_s=100)])
    await hand.claims(2)
    clock.advance(10)
    await hand.renews(("short", 1), ("long", 1))
    clock.advance(10)
    (lease,) = await store.jobs.overdue(10)
    assert (lease.spec.job_id, lease.expired) == ("short", "deadline")
    await store.jobs.settle([failed("short").__class__(job_id=JobId("short"), attempt=1, status=JobStatus.TIMEOUT)])
    assert await status(store, "short") is JobStatus.TIMEOUT
    assert (await hand.renews(("short", 1), ("long", 1))).lost == ("short",)
    assert await store.jobs.overdue(10) == []


async def test_overdue_claims_come_in_bounded_numbers(store: Store, clock: ManualClock) -> None:
    for name in ("n", "m"):
        await store.jobs.submit([spec(f"{name}{number}", timeout_s=1) for number in range(5)])
        await (await Hand(store, name).opens()).claims(5)
    clock.advance(LEASE_S)
    assert len(await store.jobs.overdue(3)) == 3
    leases = await store.jobs.overdue(100)
    assert sorted(lease.spec.job_id for lease in leases) == [f"{name}{number}" for name in "mn" for number in range(5)]
    assert await store.jobs.settle([again(lease.spec.job_id) for lease in leases]) == [True] * 10
    assert await store.jobs.overdue(100) == []


async def test_lesson_closing_a_session_gives_its_jobs_back_at_once(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x"), spec("y")])
    await hand.claims(1)
    assert await store.jobs.close_session(hand.session) == ["x"]
    assert await store.jobs.close_session(hand.session) == []
    assert not (await hand.claims(1)).session_known
    assert (await job(store, "x")).state.retry_count == 0
    assert await (await Hand(store, "m").opens()).gets(2) == ["x", "y"]


async def test_an_unknown_session_gets_nothing(store: Store) -> None:
    await store.jobs.submit([spec("x")])
    claimed = await Hand(store, "stranger").claims(1)
    assert (claimed.jobs, claimed.session_known) == ((), False)
    assert await status(store, "x") is JobStatus.PENDING


async def test_words_of_strangers_leave_no_trace_in_the_log(store: Store) -> None:
    hand, stranger = await Hand(store, "n").opens(), Hand(store, "stranger")
    stranger.worker = WorkerId("odd\nworker id")
    await store.jobs.submit([spec("x")])
    await hand.claims(1)
    strange = [completed("x"), completed("no\nsuch job"), failed("", attempt=7)]
    for claimed in (await stranger.claims(1, *strange), await hand.claims(1, *strange[1:])):
        assert set(claimed.refused) >= {"no\nsuch job", ""}
    told = [entry.event for entry in await store.log.read("0", 100)]
    assert [(event.kind, event.key, event.data) for event in told[2:]] == [("job_refused", "x", {})]
    assert await status(store, "x") is JobStatus.ASSIGNED


@pytest.mark.parametrize("name", ["", "two words", "a|b", "a\nb", "é", "x" * 129])
async def test_names_that_would_not_fit_into_keys_are_refused_and_nothing_is_stored(store: Store, name: str) -> None:
    with pytest.raises(InvalidInput):
        await store.jobs.submit([spec("fine"), spec(name)])
    assert await store.jobs.get([JobId("fine")]) == [None]
    hand = Hand(store, "n", session=name or " ")
    with pytest.raises(InvalidInput):
        await hand.opens()
    hand = Hand(store, "n")
    hand.worker = WorkerId(name)
    with pytest.raises(InvalidInput):
        await hand.opens()
    assert await store.jobs.classes() == []


@pytest.mark.parametrize("state", ["pending", "delayed", "avoiding", "assigned", "in_progress"])
async def test_lesson_cancelling_ends_a_job_in_any_state(store: Store, clock: ManualClock, state: str) -> None:
    hand, _ = await Hand(store, "n").opens(), await Hand(store, "m").opens()
    await store.jobs.submit([spec("x"), spec("y")])
    if state != "pending":
        await hand.claims(1)
    if state == "delayed":
        await hand.claims(0, again("x", at_ms=clock.now_ms() + 1000, avoid=hand.worker))
    elif state == "avoiding":
        await hand.claims(0, again("x", avoid=hand.worker))
    elif state == "in_progress":
        await store.jobs.record_progress(hand.session, [report("x")])
    ended = await store.jobs.cancel(JobId("x"))
    assert (ended.state.status, ended.state.completed_at) == (JobStatus.CANCELLED, clock.now_ms())
    assert (ended.state.next_attempt_at, ended.state.avoid_worker) == (None, None)
    assert ended == await job(store, "x")
    assert (ended.state.worker_id == hand.worker) == (state in ("assigned", "in_progress"))
    clock.advance(60)
    assert await store.jobs.promote(10) == 0
    assert (await hand.renews(("x", 1))).lost == ("x",)
    claimed = await hand.claims(5, completed("x"))
    assert [given.spec.job_id for given in claimed.jobs] == ["y"]
    assert claimed.refused == ("x",)
    assert await status(store, "x") is JobStatus.CANCELLED
    assert await store.jobs.settle([failed("x")]) == [False]
    with pytest.raises(InvalidTransition):
        await store.jobs.cancel(JobId("x"))


async def test_a_job_that_never_was_can_be_neither_cancelled_nor_revived(store: Store) -> None:
    assert await store.jobs.get([JobId("none")]) == [None]
    with pytest.raises(JobNotFound):
        await store.jobs.cancel(JobId("none"))
    with pytest.raises(JobNotFound):
        await store.jobs.revive(JobId("none"))


async def test_lesson_reviving_gives_a_job_its_retries_and_its_place_again(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec(name) for name in ("failed", "cancelled", "waits")])
    await hand.claims(1)
    await hand.claims(0, again("failed"))
    await hand.claims(1)
    await hand.claims(0, failed("failed", attempt=2))
    await store.jobs.cancel(JobId("cancelled"))
    revived = await store.jobs.revive(JobId("failed"))
    assert revived.state == JobState(status=JobStatus.PENDING, attempt=2)
    await store.jobs.revive(JobId("cancelled"))
    assert (await store.jobs.counts())[JobStatus.FAILED] == 0
    assert (await hand.claims(0, failed("failed", attempt=2))).refused == ("failed",)
    claimed = await hand.claims(5)
    assert [(given.spec.job_id, given.attempt) for given in claimed.jobs] == [
        ("failed", 3),
        ("cancelled", 1),
        ("waits", 1),
    ]


async def test_only_jobs_that_ended_badly_can_be_revived(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("done"), spec("waits")])
    await hand.claims(1)
    for name in ("done", "waits"):
        with pytest.raises(InvalidTransition):
            await store.jobs.revive(JobId(name))
    await hand.claims(0, completed("done"))
    with pytest.raises(InvalidTransition):
        await store.jobs.revive(JobId("done"))


async def test_worker_ids_that_begin_alike_are_told_apart(store: Store) -> None:
    bad, good = await Hand(store, "a").opens(), Hand(store, "xa")
    good.worker = WorkerId("b-a-worker-0")
    await good.opens()
    await store.jobs.submit([spec("x")])
    await bad.claims(1)
    await bad.claims(0, again("x", avoid=bad.worker))
    assert await bad.gets(1) == []
    assert await good.gets(1) == ["x"]
