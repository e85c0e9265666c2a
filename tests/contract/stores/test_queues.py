"""Queues: paused and resumed, counted, and jobs that nobody can run told apart."""

from muster.domain.capability import Capability
from muster.domain.job import JobStatus
from muster.domain.queue import ALL_SERVICES, CustomerTerms
from muster.ids import JobId
from tests.clocks import ManualClock
from tests.contract.stores.world import BIG, Hand, Store, again, completed, failed, needing, spec

PAINTER = Capability(services=("images",))


async def test_a_paused_queue_gives_nothing_and_what_runs_goes_on(store: Store) -> None:
    hand = await Hand(store, "n", Capability(services=("llm", "images"))).opens()
    await store.jobs.submit([spec("runs"), spec("a", priority=90), spec("picture", service_required="images")])
    assert await hand.gets(1) == ["a"]
    assert await store.jobs.set_paused("llm", paused=True)
    assert not await store.jobs.set_paused("llm", paused=True)
    await store.jobs.submit([spec("b", priority=95), needing("c", gb=0, models=[])])
    assert await hand.gets(5, completed("a")) == ["picture"]
    await hand.claims(0, again("picture"))
    assert await hand.gets(1) == ["picture"]
    assert await (await Hand(store, "late").opens()).gets(5) == []
    assert await store.jobs.paused() == {"llm"}
    assert await store.jobs.set_paused("llm", paused=False)
    assert await hand.gets(5) == ["b", "runs", "c"]


async def test_everything_can_be_paused_and_one_queue_stays_paused_after_it(store: Store) -> None:
    hand = await Hand(store, "n", Capability(services=("llm", "images"))).opens()
    await store.jobs.submit([spec("a"), spec("picture", service_required="images")])
    await store.jobs.set_paused("images", paused=True)
    await store.jobs.set_paused(ALL_SERVICES, paused=True)
    assert await hand.gets(5) == []
    await store.jobs.set_paused(ALL_SERVICES, paused=False)
    assert await hand.gets(5) == ["a"]
    await store.jobs.set_paused("images", paused=False)
    assert await hand.gets(5) == ["picture"]


async def test_pausing_holds_for_retries_limits_and_delayed_jobs(store: Store, clock: ManualClock) -> None:
    bad, good = await Hand(store, "bad").opens(), await Hand(store, "good").opens()
    await store.jobs.set_customer("acme", CustomerTerms(running_max=1))
    later_ms = clock.now_ms() + 1000
    await store.jobs.submit([spec("x"), spec("l", customer_id="acme"), spec("later", run_at=later_ms)])
    assert await bad.gets(2) == ["l", "x"]
    await store.jobs.set_paused("llm", paused=True)
    await bad.claims(0, again("x", avoid=bad.worker), again("l"))
    clock.advance(1)
    await store.jobs.promote(10)
    assert await good.gets(5) == await bad.gets(5) == []
    await store.jobs.set_paused("llm", paused=False)
    assert sorted(await good.gets(5)) == ["l", "later", "x"]


async def test_queues_are_counted(store: Store, clock: ManualClock) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("a"), spec("b", priority=60), spec("c"), needing("d", gb=4, customer_id="acme")])
    await store.jobs.submit([spec("picture", service_required="images")])
    await hand.claims(2)
    await hand.claims(0, completed("b"))
    await store.jobs.set_paused("images", paused=True)
    await store.jobs.set_paused("none-yet", paused=True)
    images, llm, none_yet = await store.jobs.queues()
    assert (llm.service, llm.paused, llm.waiting, llm.running) == ("llm", False, 2, 1)
    assert (images.service, images.paused, images.waiting, images.running) == ("images", True, 1, 0)
    assert (none_yet.service, none_yet.paused, none_yet.waiting) == ("none-yet", True, 0)
    assert images.first == ("picture",)
    assert len(llm.first) == 1
    assert llm.submitted_per_min > llm.completed_per_min > llm.failed_per_min == 0
    await hand.claims(0, *(failed(name) for name in ("a", "c", "d")))
    clock.advance(3600)
    rested = {queue.service: queue.submitted_per_min for queue in await store.jobs.queues()}
    assert rested["llm"] == 0


async def test_what_was_submitted_is_counted_by_the_minute_whatever_became_of_it(
    store: Store, clock: ManualClock
) -> None:
    hand = await Hand(store, "n").opens()

    async def submitted_per_min() -> float:
        (queue,) = await store.jobs.queues()
        return queue.submitted_per_min

    for name in "abc":
        await store.jobs.submit([spec(name)])
    of_three = await submitted_per_min()
    await hand.claims(2)
    await hand.claims(0, completed("a"), completed("b"))
    assert await store.jobs.purge(clock.now_ms() + 1, 0, 10) == 2
    assert await submitted_per_min() == of_three
    clock.advance(60)
    await store.jobs.submit([spec("d")])
    await store.jobs.submit([spec("c"), spec("e"), spec("f")])  # one is known
    assert await submitted_per_min() == 2 * of_three
    clock.advance(240)  # the first minute is none of the last five
    assert await submitted_per_min() == of_three


# --- jobs that nobody can run -----------------------------------------------------------------------------------------


async def test_jobs_that_nobody_can_run_are_counted_and_listed_as_such_at_once(store: Store) -> None:
    small = await Hand(store, "small").opens()
    await store.jobs.submit([needing("huge", gb=64, priority=90), needing("fits"), needing("larger", gb=48)])
    counts = await store.jobs.counts()
    assert (counts[JobStatus.PENDING], counts[JobStatus.UNWORKABLE]) == (1, 2)
    assert await _listed(store, JobStatus.UNWORKABLE) == (["huge", "larger"], 2)
    assert await _listed(store, JobStatus.PENDING) == (["fits"], 1)
    big = await Hand(store, "big", BIG).opens()
    assert (await store.jobs.counts())[JobStatus.UNWORKABLE] == 0
    assert await _listed(store, JobStatus.PENDING) == (["huge", "fits", "larger"], 3)
    await store.jobs.close_session(big.session)
    assert await _listed(store, JobStatus.UNWORKABLE) == (["huge", "larger"], 2)
    await store.jobs.close_session(small.session)
    assert (await store.jobs.counts())[JobStatus.UNWORKABLE] == 3


async def test_pages_of_unworkable_jobs_go_on_where_they_were(store: Store) -> None:
    names = [f"j{number:02}" for number in range(20)]
    await store.jobs.submit([needing(name, gb=100 + at % 3) for at, name in enumerate(names)])
    await Hand(store, "n").opens()
    found, cursor = [], None
    while True:
        page = await store.jobs.page(JobStatus.UNWORKABLE, cursor, 7)
        found += [str(job.job_id) for job in page.jobs]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == names


async def test_a_paused_queue_is_no_reason_to_call_its_jobs_unworkable(store: Store) -> None:
    await Hand(store, "n").opens()
    await store.jobs.set_paused("llm", paused=True)
    await store.jobs.submit([spec("a")])
    assert (await store.jobs.counts())[JobStatus.UNWORKABLE] == 0
    assert await store.jobs.position(JobId("a")) == 0


async def _listed(store: Store, status: JobStatus) -> tuple[list[str], int]:
    page = await store.jobs.page(status, None, 10)
    return [str(job.job_id) for job in page.jobs], page.total
