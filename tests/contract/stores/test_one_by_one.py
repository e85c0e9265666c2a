"""A worker of one slot: a call that ends its job and claims the next one does all that two calls would do."""

import pytest
from msgspec import Raw

from muster.domain.job import JobStatus
from muster.domain.queue import CustomerTerms
from muster.errors import InvalidInput
from muster.ids import JobId
from muster.jobs.order import place_of
from muster.stores.memory import MemoryStore
from muster.webhooks.wanted import order
from tests.clocks import ManualClock
from tests.contract.stores.world import Hand, Store, again, completed, failed, job, spec, status


async def test_each_call_ends_one_job_and_gives_the_next(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec(name) for name in "abc"])
    assert await hand.gets(1) == ["a"]
    assert await hand.gets(1, completed("a", result=1)) == ["b"]
    assert await hand.gets(1, completed("b", result=None)) == ["c"]
    assert [await status(store, name) for name in "abc"] == [JobStatus.COMPLETED] * 2 + [JobStatus.ASSIGNED]
    results = [(await job(store, name)).state.result for name in "ab"]
    assert [bytes(result) for result in results if isinstance(result, Raw)] == [b"1", b"null"]
    assert (await hand.renews(("c", 1))).returned == ()
    assert await hand.gets(1, completed("c")) == []


async def test_a_job_that_was_tried_before_goes_on_counting_and_loses_its_error(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("a"), spec("b")])
    await hand.gets(1)
    assert await hand.gets(1, again("a")) == ["a"]
    assert (await job(store, "a")).state.error is not None
    assert await hand.gets(1, completed("a", attempt=2)) == ["b"]
    ended = (await job(store, "a")).state
    assert (ended.status, ended.attempt, ended.retry_count, ended.error) == (JobStatus.COMPLETED, 2, 1, None)


async def test_an_end_that_comes_late_takes_nothing_from_the_next_job(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("a"), spec("b")])
    await hand.gets(1)
    await store.jobs.cancel(JobId("a"))
    claimed = await hand.claims(1, completed("a"))
    assert (claimed.refused, [found.spec.job_id for found in claimed.jobs]) == (("a",), ["b"])
    assert await status(store, "a") is JobStatus.CANCELLED


async def test_what_waited_for_the_job_that_ends_may_be_the_next_one(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("a"), spec("after", priority=90, depends_on=("a",)), spec("b")])
    assert await hand.gets(1) == ["a"]
    assert await hand.gets(1, completed("a")) == ["after"]


async def test_the_end_of_a_customers_job_makes_room_for_its_next_one(store: Store) -> None:
    await store.jobs.set_customer("acme", CustomerTerms(running_max=1))
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec(name, customer_id="acme") for name in ("x", "y")])
    await store.jobs.submit([spec("nobody", priority=1)])
    assert await hand.gets(1) == ["x"]
    assert await hand.gets(1, completed("x")) == ["y"]
    assert await hand.gets(1, completed("y")) == ["nobody"]
    assert (await store.jobs.customer("acme")).running == 0


async def test_customers_without_limits_are_counted_while_they_run(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("a"), spec("x", customer_id="acme")])
    await hand.gets(1)
    assert await hand.gets(1, completed("a")) == ["x"]
    assert (await store.jobs.customer("acme")).running == 1
    await hand.gets(1, failed("x"))
    assert (await store.jobs.customer("acme")).running == 0


async def test_a_reader_that_stops_at_any_event_goes_on_with_the_next(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec(name) for name in "abcd"])
    for at, name in enumerate("abcd"):
        await hand.gets(1, *[completed(before) for before in "abcd"[at - 1 : at]])
        assert await status(store, name) is JobStatus.ASSIGNED
    told = await store.log.read("0", 100)
    kinds = [entry.event.kind for entry in told]
    assert kinds == ["job_submitted", "job_claimed", *["job_completed", "job_claimed"] * 3]
    assert [order(entry.id) for entry in told] == sorted({order(entry.id) for entry in told})
    assert (await store.log.oldest_id(), await store.log.newest_id()) == (told[0].id, told[-1].id)
    for at, entry in enumerate(told):
        for limit in (1, 2, 100):
            assert await store.log.read(entry.id, limit) == told[at + 1 :][:limit]


async def test_a_place_that_an_id_known_already_was_given_is_not_lost(store: Store) -> None:
    await store.jobs.submit([spec("a"), spec("b")])
    assert [new.created for new in await store.jobs.submit([spec("a"), spec("c"), spec("b")])] == [False, True, False]
    await store.jobs.submit(
        [spec("x", customer_id="acme"), spec("y", customer_id="acme"), spec("z", customer_id="acme")]
    )
    hand = await Hand(store, "n").opens()
    assert await hand.gets(10) == ["a", "x", "b", "y", "c", "z"]


async def test_equal_places_in_one_queue_come_by_id_whichever_was_first_in_the_call(store: Store) -> None:
    await store.jobs.submit([spec("b", customer_id="one"), spec("a", customer_id="two")])
    hand = await Hand(store, "n").opens()
    assert await hand.gets(1) + await hand.gets(1) == ["a", "b"]


@pytest.mark.parametrize("want", [1, 4])
async def test_turns_of_customers_are_no_reason_to_go_before_them(store: Store, want: int) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([spec("a0")])
    for name in ("a1", "a2", "a3", "a4"):
        await store.jobs.submit([spec(name, customer_id="acme")])
    assert await hand.gets(1) == ["a0"]
    got: list[str] = []
    while len(got) < 4:
        got += await hand.gets(want)
    for name, customer in (("of-nobody", None), ("of-acme", "acme"), ("of-another", "another"), ("last", None)):
        await store.jobs.submit([spec(name, customer_id=customer)])
    assert await hand.gets(10) == ["of-acme", "of-another", "of-nobody", "last"]  # the same place, so by id


async def test_places_go_on_where_an_earlier_version_left_them(store: Store) -> None:
    if isinstance(store, MemoryStore):
        return
    server = store.server
    await server.execute("ZADD", server.key("tags"), 500, "|50")
    for name in ("b", "b", "a"):
        await store.jobs.submit([spec(name)])
    await store.jobs.submit([spec("c"), spec("d")])
    flat = await server.execute("ZRANGE", server.key("pending"), 0, -1, "WITHSCORES")
    places = [(name.decode(), place_of(float(score))) for name, score in zip(flat[::2], flat[1::2], strict=True)]
    assert places == [("b", 600), ("a", 700), ("c", 800), ("d", 900)]


async def test_what_was_not_submitted_leaves_no_trace(store: Store, clock: ManualClock) -> None:
    await store.jobs.submit([spec("a")])
    await store.jobs.submit([spec("a", service_required="other")])  # known, whatever it asks for now
    with pytest.raises(InvalidInput):
        await store.jobs.submit([spec("b"), spec("c", depends_on=("absent",))])
    hand = await Hand(store, "n").opens()
    assert await hand.gets(10) == ["a"]
    await hand.gets(1, completed("a"))
    assert await store.jobs.purge(clock.now_ms() + 1, 0, 100) == 1
    if not isinstance(store, MemoryStore):
        uses = store.server.key("uses")
        assert await store.server.execute("EXISTS", uses) == 0
