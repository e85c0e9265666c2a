"""Customers: who may run whose jobs, who comes next, and how many may run and wait."""

from typing import Any

import pytest
from msgspec.structs import replace

from muster.domain.capability import Capability, CustomerAccess
from muster.domain.job import JobSpec, JobStatus
from muster.domain.queue import CustomerTerms
from muster.errors import InvalidInput, QueueFull
from muster.ids import JobId
from tests.clocks import ManualClock
from tests.contract.stores.world import SMALL, Hand, Store, again, completed, failed, needing, spec


def serving(allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()) -> Capability:
    return replace(SMALL, customers=CustomerAccess(allow=allow, deny=deny))


def of(customer: str, *names: str, **fields: Any) -> list[JobSpec]:
    return [spec(name, customer_id=customer, **fields) for name in names]


# --- whose jobs a worker takes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["jobs", "worker"])
async def test_lesson_a_denied_customer_is_refused_though_its_jobs_ask_for_nothing(store: Store, first: str) -> None:
    denies = Hand(store, "denies", serving(deny=("umbrella",)))
    if first == "worker":
        await denies.opens()
    await store.jobs.submit([*of("umbrella", "u"), *of("acme", "a"), spec("nobody")])
    if first == "jobs":
        await denies.opens()
    assert await denies.gets(5) == ["a", "nobody"]
    assert (await store.jobs.counts())[JobStatus.UNWORKABLE] == 1
    assert await (await Hand(store, "anybody").opens()).gets(5) == ["u"]


@pytest.mark.parametrize("first", ["jobs", "worker"])
async def test_a_worker_that_is_kept_for_customers_takes_no_others(store: Store, first: str) -> None:
    kept = Hand(store, "kept", serving(allow=("acme",)))
    if first == "worker":
        await kept.opens()
    await store.jobs.submit([*of("umbrella", "u"), *of("acme", "a"), spec("nobody")])
    if first == "jobs":
        await kept.opens()
    assert await kept.gets(5) == ["a"]
    assert sorted(await (await Hand(store, "anybody").opens()).gets(5)) == ["nobody", "u"]


async def test_jobs_that_wait_for_their_time_are_not_forgotten_when_a_customer_is_denied(
    store: Store, clock: ManualClock
) -> None:
    await store.jobs.submit([*of("umbrella", "later", run_at=clock.now_ms() + 1000), *of("umbrella", "retried")])
    anybody = await Hand(store, "anybody").opens()
    await anybody.claims(1)
    denies = await Hand(store, "denies", serving(deny=("umbrella",))).opens()
    await anybody.claims(0, again("retried", avoid=anybody.worker))
    clock.advance(1)
    await store.jobs.promote(10)
    assert await denies.gets(5) == []
    assert sorted(await anybody.gets(5)) == ["later", "retried"]


async def test_the_order_is_the_same_whatever_queues_customers_have(store: Store) -> None:
    await store.jobs.set_customer("acme", CustomerTerms(running_max=100))
    hand = await Hand(store, "n", serving(deny=("umbrella",))).opens()
    await store.jobs.submit([*of("acme", "a1"), spec("n1"), *of("acme", "urgent", priority=90), *of("acme", "a2")])
    assert await hand.gets(1) == ["urgent"]
    assert await hand.gets(2) == ["a1", "n1"]
    assert await hand.gets(5) == ["a2"]


# --- fairness ---------------------------------------------------------------------------------------------------------


async def test_customers_take_turns_whoever_submitted_how_much_before(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit(of("a", *(f"a{number}" for number in range(50))))
    assert await hand.gets(2) == ["a0", "a1"]
    await store.jobs.submit(of("b", "b0", "b1", "b2"))
    assert await hand.gets(6) == ["a2", "b0", "a3", "b1", "a4", "b2"]
    assert await hand.gets(2) == ["a5", "a6"]


async def test_a_customer_does_not_pay_for_having_had_the_fleet_for_itself(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    for number in range(20):
        await store.jobs.submit(of("a", f"early{number}"))
        await hand.claims(1)
    await store.jobs.submit([*of("b", "b0", "b1"), *of("a", "a0", "a1")])
    assert await hand.gets(9) == ["a0", "b0", "a1", "b1"]


async def test_weights_divide_the_fleet(store: Store) -> None:
    await store.jobs.set_customer("big", CustomerTerms(weight=3))
    hand = await Hand(store, "n").opens()
    await store.jobs.submit(of("big", *(f"big{number:02}" for number in range(30))))
    await store.jobs.submit(of("small", *(f"small{number:02}" for number in range(30))))
    first = await hand.gets(20)
    assert sum(name.startswith("big") for name in first) == 15
    assert [name for name in first if name.startswith("big")] == [f"big{number:02}" for number in range(15)]


async def test_priority_comes_before_fairness(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([*of("a", "a0", "a1", "a2", priority=60), *of("b", "b0")])
    assert await hand.gets(9) == ["a0", "a1", "a2", "b0"]


async def test_a_customers_workflows_are_paid_for_step_by_step(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit(of("a", "w0", "w1", "w2", workflow_id="w"))
    await store.jobs.submit([*of("a", "x"), *of("b", "b0", "b1", "b2")])
    assert await hand.gets(9) == ["b0", "w0", "w1", "w2", "b1", "b2", "x"]


async def test_lesson_first_come_is_first_served_however_close_jobs_follow(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    names = [f"{(number * 7919) % 1000:03}" for number in range(300)]  # ids that do not sort by time
    await store.jobs.submit([spec(f"x{name}", priority=50) for name in names])
    assert await hand.gets(300) == [f"x{name}" for name in names]


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("want", [1, 3, 10])
async def test_no_more_of_a_customer_run_than_may(store: Store, want: int) -> None:
    await store.jobs.set_customer("acme", CustomerTerms(running_max=2))
    hand, other = await Hand(store, "n").opens(), await Hand(store, "m").opens()
    await store.jobs.submit([*of("acme", "a1", "a2", "a3"), needing("a4", gb=4, customer_id="acme"), spec("x")])
    taken = []
    for _ in range(5):
        taken += await hand.gets(want)
    assert taken == ["a1", "x", "a2"]
    assert await other.gets(5) == []
    assert (await store.jobs.customer("acme")).running == 2
    assert await other.gets(5, completed("a1")) == []  # not its job
    assert await hand.gets(5, completed("a1")) == ["a3"]
    assert await hand.gets(5, failed("a2"), failed("a3")) == ["a4"]


async def test_every_way_out_of_an_attempt_makes_room(store: Store, clock: ManualClock) -> None:
    await store.jobs.set_customer("acme", CustomerTerms(running_max=1))
    hand, other = await Hand(store, "n").opens(), await Hand(store, "m").opens()
    await store.jobs.submit(of("acme", "a", deadline_s=60))
    await store.jobs.submit(of("acme", "b", "c", "d", "e"))
    assert await hand.gets(5) == ["a"]
    clock.advance(60)
    await store.jobs.expire(10)
    await other.renews()
    assert await other.gets(5) == ["b"]
    await store.jobs.cancel(JobId("b"))
    assert await other.gets(5) == ["c"]
    await store.jobs.close_session(other.session)
    assert await hand.gets(5) == ["c"]
    clock.advance(16)
    leases = await store.jobs.overdue(10)
    await store.jobs.settle([again(lease.spec.job_id, lease.attempt) for lease in leases])
    await other.opens()
    assert await other.gets(5) == ["c"]
    assert await other.gets(5, again("c", 3, at_ms=clock.now_ms() + 1000)) == ["d"]
    clock.advance(1)
    await store.jobs.promote(10)
    assert await other.gets(5) == []
    assert await other.gets(5, completed("d")) == ["c"]
    assert await other.gets(5, completed("c", 4)) == ["e"]


async def test_a_limit_holds_for_jobs_that_came_before_it_and_ends_when_it_is_lifted(store: Store) -> None:
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([*of("acme", *(f"a{number:03}" for number in range(700))), spec("x", priority=10)])
    assert not await store.jobs.set_customer("acme", CustomerTerms(running_max=1))
    assert await hand.gets(5) == ["a000", "x"]
    assert await store.jobs.set_customer("acme", CustomerTerms(running_max=3))
    assert await hand.gets(5) == ["a001", "a002"]
    assert await store.jobs.set_customer("acme", None)
    assert await hand.gets(2) == ["a003", "a004"]
    assert (await store.jobs.customer("acme")).running == 5
    assert len(await hand.gets(1000)) == 695


async def test_a_customer_of_whom_nothing_may_run_holds_nobody_up(store: Store) -> None:
    await store.jobs.set_customer("acme", CustomerTerms(running_max=0))
    await store.jobs.submit([*of("acme", *(f"a{number}" for number in range(200)), priority=99), spec("x")])
    hand = await Hand(store, "n").opens()
    assert await hand.gets(5) == ["x"]
    figures = await store.jobs.customer("acme")
    assert (figures.waiting, figures.running) == (200, 0)


async def test_only_so_many_of_a_customer_may_wait(store: Store) -> None:
    await store.jobs.set_customer("acme", CustomerTerms(waiting_max=3))
    hand = await Hand(store, "n").opens()
    await store.jobs.submit(of("acme", "a", "b"))
    with pytest.raises(QueueFull) as caught:
        await store.jobs.submit([spec("x"), *of("acme", "c", "d")])
    assert (caught.value.http_status, caught.value.field) == (429, "customer_id")
    assert await store.jobs.get([JobId("x"), JobId("c")]) == [None, None]
    assert [entry.created for entry in await store.jobs.submit(of("acme", "a", "b", "c"))] == [False, False, True]
    assert await hand.gets(1) == ["a"]
    await store.jobs.submit(of("acme", "d"))
    with pytest.raises(QueueFull):
        await store.jobs.submit(of("acme", "e"))
    await store.jobs.cancel(JobId("d"))
    await store.jobs.submit(of("acme", "e"))


@pytest.mark.parametrize("problem", ["limit", "dependency"])
async def test_of_many_jobs_at_once_all_are_taken_or_none(store: Store, problem: str) -> None:
    await store.jobs.set_customer("acme", CustomerTerms(waiting_max=600))
    many = of("acme", *(f"j{number:03}" for number in range(601)))
    if problem == "dependency":
        many = [*many[:600], spec("last", depends_on=(JobId("j599"), JobId("nobody")))]
    with pytest.raises(QueueFull if problem == "limit" else InvalidInput):
        await store.jobs.submit(many)
    assert sum((await store.jobs.counts()).values()) == 0
    assert all(entry.created for entry in await store.jobs.submit(many[:600]))
    assert not any(entry.created for entry in await store.jobs.submit(many[:600]))  # known ones need no room


async def test_what_is_set_for_customers_can_be_read(store: Store) -> None:
    strange = "someone|odd @ example.org"
    await store.jobs.set_customer(strange, CustomerTerms(weight=7, running_max=2))
    await store.jobs.set_customer("acme", CustomerTerms(waiting_max=5))
    await store.jobs.submit(of(strange, "a"))
    found = {entry.name: (entry.terms, entry.waiting) for entry in await store.jobs.customers()}
    assert found == {
        strange: (CustomerTerms(weight=7, running_max=2), 1),
        "acme": (CustomerTerms(waiting_max=5), 0),
    }
    assert (await store.jobs.customer("unknown")).terms is None
    assert not await store.jobs.set_customer("unknown", None)
