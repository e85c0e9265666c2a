"""Priority, then first come, over all signatures; and nobody waits behind what nobody can run."""

import asyncio

import pytest

from muster.domain.job import JobStatus, Progress
from muster.errors import InvalidInput
from muster.ids import JobId
from muster.wire import ProgressReport
from tests.clocks import ManualClock
from tests.contract.stores.world import BIG, SMALL, Hand, Store, again, completed, failed, needing, spec


async def test_priority_comes_first_and_then_first_come_over_all_signatures(store: Store) -> None:
    for name, models, priority in (
        ("a1", "a", 50),
        ("b1", "b", 50),
        ("a2", "a", 50),
        ("high", "b", 90),
        ("low", "a", 0),
        ("b2", "b", 50),
    ):
        await store.jobs.submit([needing(name, models=[models], priority=priority)])
    hand = await Hand(store, "n").opens()
    assert await hand.gets(10) == ["high", "a1", "b1", "a2", "b2", "low"]


@pytest.mark.parametrize("want", [1, 2, 3, 7])
async def test_the_order_is_the_same_however_many_are_claimed_at_a_time(store: Store, want: int) -> None:
    names = [f"j{number:02}" for number in range(40)]
    # Runs of one signature, and signatures that take turns.
    await store.jobs.submit(
        [needing(name, gb=1 + (at // 7 if at < 20 else at % 3), priority=50) for at, name in enumerate(names)]
    )
    hand = await Hand(store, "n").opens()
    taken: list[str] = []
    while got := await hand.gets(want):
        taken += got
    assert taken == names


async def test_what_a_worker_can_run_is_decided_by_service_models_memory_and_labels(store: Store) -> None:
    await store.jobs.submit(
        [
            needing("fits"),
            needing("more-memory", gb=48),
            needing("other-model", models=["a", "c"]),
            needing("other-zone", labels={"zone": "y"}),
            spec("other-service", service_required="images"),
            needing("labelled", labels={"zone": "x"}),
        ]
    )
    small, big = await Hand(store, "small").opens(), await Hand(store, "big", BIG).opens()
    assert await small.gets() == ["fits", "labelled"]
    assert await big.gets() == ["more-memory", "other-model"]
    assert await big.gets() == []


async def test_a_class_that_joins_later_finds_what_waits_for_it(store: Store) -> None:
    await store.jobs.submit([spec("images", service_required="images"), needing("chat")])
    assert await (await Hand(store, "n").opens()).gets() == ["chat"]
    painter = Hand(store, "painter", SMALL.__class__(services=("images",)))
    assert await (await painter.opens()).gets() == ["images"]


async def test_a_session_that_learns_more_gets_more(store: Store) -> None:
    await store.jobs.submit([needing("large", gb=48)])
    hand = await Hand(store, "n").opens()
    assert await hand.gets() == []
    await hand.opens(BIG)
    assert await hand.gets() == ["large"]
    assert {entry.capability.gpu_memory_gb: entry.sessions for entry in await store.jobs.classes()} == {24: 0, 80: 1}


async def test_lesson_jobs_that_nobody_can_run_block_nobody(store: Store) -> None:
    await store.jobs.submit([needing(f"huge-{at}", gb=640, priority=100) for at in range(300)])
    await store.jobs.submit([needing("small", priority=1)])
    assert await (await Hand(store, "n").opens()).gets() == ["small"]
    assert await store.jobs.position(JobId("huge-0")) == 0


async def test_submitting_an_id_again_changes_nothing(store: Store) -> None:
    first = await store.jobs.submit([spec("x", payload=1), spec("y"), spec("x", payload=2)])
    assert [(entry.job_id, entry.created) for entry in first] == [("x", True), ("y", True), ("x", False)]
    hand = await Hand(store, "n").opens()
    assert await hand.gets(1) == ["x"]
    assert [entry.created for entry in await store.jobs.submit([spec("x", payload=3), spec("z")])] == [False, True]
    assert [found.spec.payload for found in (await store.jobs.page(JobStatus.ASSIGNED, None, 10)).jobs] == [1]
    assert await hand.gets(10) == ["y", "z"]


async def test_large_submits_are_cut_into_calls_without_losing_order(store: Store) -> None:
    names = [f"j{number:04}" for number in range(1200)]
    created = await store.jobs.submit([needing(name, gb=1 + at % 4) for at, name in enumerate(names)])
    assert all(entry.created for entry in created)
    assert [entry.job_id for entry in created] == names
    hand = await Hand(store, "n").opens()
    assert await hand.gets(1000) == names[:1000]
    assert await hand.gets(1000) == names[1000:]


async def test_lesson_an_index_entry_of_jobs_that_others_took_costs_a_look_and_no_job(store: Store) -> None:
    await store.jobs.submit([needing("x"), needing("y"), needing("z", models=["b"])])
    small, big = await Hand(store, "small").opens(), await Hand(store, "big", BIG).opens()
    assert await small.gets(1) == ["x"]
    assert await big.gets(5) == ["y", "z"]
    assert await small.gets(5) == []
    await store.jobs.submit([needing("later")])
    assert await small.gets(5) == ["later"]


async def test_lesson_steps_of_a_workflow_share_its_place_and_its_priority(store: Store) -> None:
    await store.jobs.submit([spec("w-1", workflow_id="w"), spec("single"), spec("first", priority=60)])
    await store.jobs.submit([needing("w-3", workflow_id="w", models=["b"]), needing("w-2", workflow_id="w")])
    await store.jobs.submit([spec("urgent-2", workflow_id="u", workflow_priority=70, priority=1)])
    hand = await Hand(store, "n").opens()
    # Steps of equal place come by id, over signatures too.
    assert await hand.gets() == ["urgent-2", "first", "w-1", "w-2", "w-3", "single"]


async def test_equal_places_over_many_signatures_come_by_id(store: Store) -> None:
    names = [f"step-{number:02}" for number in range(30)]
    specs = [needing(name, gb=1 + (at * 7) % 5, workflow_id="w") for at, name in enumerate(names)]
    await store.jobs.submit(list(reversed(specs)))
    hand = await Hand(store, "n").opens()
    assert await hand.gets(4) + await hand.gets(40) == names


async def test_position_counts_those_before_it_over_all_signatures(store: Store) -> None:
    await store.jobs.submit([needing("a"), needing("b", models=["b"]), needing("c", gb=640), needing("d", priority=99)])
    positions = [await store.jobs.position(JobId(name)) for name in ("d", "a", "b", "c", "unknown")]
    assert positions == [0, 1, 2, 3, None]
    assert await (await Hand(store, "n").opens()).gets(1) == ["d"]
    assert await store.jobs.position(JobId("d")) is None
    assert await store.jobs.position(JobId("c")) == 2


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_the_line_is_paged_over_all_signatures_whatever_shares_a_place(store: Store, limit: int) -> None:
    await Hand(store, "n").opens()
    names = [f"j{number:02}" for number in range(40)]
    for at, name in enumerate(names):  # those of the workflow share the place of its first
        workflow = "w" if at % 4 == 1 else None
        await store.jobs.submit([needing(name, gb=at % 3 + 1, workflow_id=workflow)])
    await store.jobs.submit([needing("late", run_at=2**45), needing("after", depends_on=("j00",))])
    first = names[:1] + names[1::4]
    line = first + [name for name in names if name not in first]
    pages = await _pages(store, JobStatus.PENDING, limit)
    assert [name for page in pages for name in page] == [*line, "late", "after"]
    assert [await store.jobs.position(JobId(name)) for name in line] == list(range(40))
    assert [await store.jobs.position(JobId(name)) for name in ("late", "after")] == [None, None]


async def test_lesson_twenty_claimers_of_one_job_have_one_winner(store: Store) -> None:
    hands = [await Hand(store, f"n{number}").opens() for number in range(20)]
    await store.jobs.submit([spec("only")])
    taken = await asyncio.gather(*(hand.gets(1) for hand in hands))
    assert sorted(map(len, taken)) == [0] * 19 + [1]


async def test_pages_of_waiting_jobs_come_in_queue_order_and_then_those_that_are_delayed(
    store: Store, clock: ManualClock
) -> None:
    await store.jobs.submit([spec("d1"), spec("d2")])
    hand = await Hand(store, "n").opens()
    await hand.claims(2)
    now_ms = clock.now_ms()
    await store.jobs.settle([again("d1", at_ms=now_ms + 9000), again("d2", at_ms=now_ms + 5000)])
    await store.jobs.submit([spec("p2"), spec("p1", priority=80), spec("p3")])
    assert await _pages(store, JobStatus.PENDING, 2) == [["p1", "p2"], ["p3", "d2"], ["d1"]]
    assert await _pages(store, JobStatus.PENDING, 5) == [["p1", "p2", "p3", "d2", "d1"]]


async def test_pages_of_ended_jobs_come_newest_first(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    names = [f"j{number}" for number in range(7)]
    await store.jobs.submit([spec(name) for name in names])
    await hand.claims(7)
    for group in (names[:2], names[2:6], names[6:]):  # several end in one millisecond
        clock.advance(1)
        await hand.claims(0, *(completed(name) for name in group))
    assert await _pages(store, JobStatus.COMPLETED, 3) == [["j6", "j5", "j4"], ["j3", "j2", "j1"], ["j0"]]


async def test_a_page_goes_on_where_it_was_though_jobs_end_and_vanish(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec(f"j{number}") for number in range(6)])
    await hand.claims(6)
    await hand.claims(0, *(completed(f"j{number}") for number in range(5)))
    page = await store.jobs.page(JobStatus.COMPLETED, None, 2)
    assert [found.job_id for found in page.jobs] == ["j4", "j3"]
    assert page.total == 5
    clock.advance(1)
    await hand.claims(0, completed("j5"))
    await store.jobs.purge(0, 3, 100)  # j0 to j2 go, of which j2 was next
    rest = await store.jobs.page(JobStatus.COMPLETED, page.next_cursor, 2)
    assert [found.job_id for found in rest.jobs] == []
    await store.jobs.purge(0, 1, 100)
    assert [found.job_id for found in (await store.jobs.page(JobStatus.COMPLETED, None, 2)).jobs] == ["j5"]


async def test_a_page_of_everything_shows_what_runs_what_waits_and_what_ended(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec(name) for name in ("done", "bad", "runs", "waits", "waits-too")])
    await hand.claims(3)
    await hand.claims(0, completed("done"))
    clock.advance(1)
    await store.jobs.cancel(JobId("bad"))
    assert await _pages(store, None, 2) == [["runs", "waits"], ["waits-too", "bad"], ["done"]]
    assert (await store.jobs.page(None, None, 1)).total == 5
    assert (await store.jobs.page(JobStatus.UNWORKABLE, None, 1)).jobs == ()


async def test_lesson_pages_carry_no_results(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("x")])
    await hand.claims(1)
    await hand.claims(0, completed("x", result="long"))
    (slim,) = (await store.jobs.page(JobStatus.COMPLETED, None, 1)).jobs
    assert slim.state.result is slim.state.__class__().result


async def test_lesson_what_is_kept_beside_jobs_is_not_taken_for_jobs(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec(name) for name in ("a", "b", "c")])
    await hand.claims(2)
    report = ProgressReport(job_id=JobId("a"), attempt=1, progress=Progress(fraction=0.5))
    await store.jobs.record_progress(hand.session, [report])
    await hand.claims(0, failed("b"))
    page = await store.jobs.page(None, None, 100)
    assert (sorted(one.job_id for one in page.jobs), page.total) == (["a", "b", "c"], 3)
    counts = await store.jobs.counts()
    assert (counts[JobStatus.PENDING], counts[JobStatus.IN_PROGRESS], counts[JobStatus.FAILED]) == (1, 1, 1)


@pytest.mark.parametrize("cursor", ["x", "", "WzAsMSwieCJd", "bnVsbA==", "WzksMSwieCJd", "é"])
async def test_a_bad_cursor_is_refused(store: Store, cursor: str) -> None:
    if cursor == "WzAsMSwieCJd":  # well formed: a place that nobody has
        assert (await store.jobs.page(JobStatus.FAILED, cursor, 5)).jobs == ()
        return
    with pytest.raises(InvalidInput) as caught:
        await store.jobs.page(JobStatus.FAILED, cursor, 5)
    assert caught.value.field == "cursor"


async def test_counts_tell_each_job_once(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec(name) for name in ("a", "b", "c", "d", "e")])
    await hand.claims(4)
    await hand.claims(0, completed("a"), again("b", at_ms=clock.now_ms() + 1000))
    await store.jobs.cancel(JobId("c"))
    assert await store.jobs.counts() == {
        JobStatus.PENDING: 2,
        JobStatus.ASSIGNED: 1,
        JobStatus.IN_PROGRESS: 0,
        JobStatus.COMPLETED: 1,
        JobStatus.FAILED: 0,
        JobStatus.CANCELLED: 1,
        JobStatus.TIMEOUT: 0,
        JobStatus.UNWORKABLE: 0,
    }


async def _pages(store: Store, status: JobStatus | None, limit: int) -> list[list[str]]:
    pages, cursor = [], None
    while True:
        page = await store.jobs.page(status, cursor, limit)
        pages.append([str(found.job_id) for found in page.jobs])
        cursor = page.next_cursor
        if cursor is None:
            return pages


async def test_those_who_wait_with_one_need_are_counted(store: Store) -> None:
    await store.jobs.submit([needing("a1", models=["a"]), needing("a2", models=["a"]), needing("b1", models=["b"])])
    need_of_a, need_of_c = needing("x", models=["a"]).need, needing("x", models=["c"]).need
    assert await store.jobs.waiting(need_of_a) == 2
    assert await store.jobs.waiting(need_of_c) == 0
    hand = await Hand(store, "n").opens()
    await hand.gets(1)
    assert await store.jobs.waiting(need_of_a) == 1
