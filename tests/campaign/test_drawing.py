"""What is drawn from a seed: the same again, in the bounds that were set, and of every kind."""

from collections import Counter
from itertools import pairwise

from tests.campaign import orders, schedule
from tests.campaign.report import rates

TARGETS = {
    schedule.AGENT: ["http-0", "grpc-1"],
    schedule.PLANE: ["plane-0", "plane-1"],
    schedule.STORE: ["store"],
    schedule.BROKER: ["broker"],
}


def faults(seed: int, count: int = 200) -> list[schedule.Fault]:
    return schedule.draw(seed, TARGETS, count=count, from_s=10, every_s=5, longest_s=8)


def test_a_seed_gives_the_same_campaign_again_and_another_one_another() -> None:
    assert faults(1) == faults(1) != faults(2)
    assert orders.draw(1, 50, worker_seconds=100) == orders.draw(1, 50, worker_seconds=100)
    assert orders.draw(1, 50, worker_seconds=100) != orders.draw(2, 50, worker_seconds=100)


def test_each_kind_comes_as_often_as_the_others_and_nobody_is_hurt_twice_at_once() -> None:
    drawn = faults(3, count=len(schedule.KINDS) * 5)
    assert set(Counter(fault.kind for fault in drawn).values()) == {5}
    assert all(fault.target in TARGETS[schedule.KINDS[fault.kind][0]] for fault in drawn)
    assert all(fault.at_s >= 10 and 0 < fault.lasts_s <= 8 for fault in drawn)
    for name in (name for names in TARGETS.values() for name in names):
        mine = [fault for fault in drawn if fault.target == name]
        assert all(first.ends_s < second.at_s for first, second in pairwise(mine))


def test_jobs_have_ids_of_their_own_and_need_the_share_of_the_workers_that_was_meant() -> None:
    drawn = orders.draw(5, 5000, worker_seconds=6000)
    assert len({order.job_id for order in drawn}) == len(drawn)
    lasting = [order for order in drawn if "timeout_s" not in order.body]
    seconds = sum(order.body["payload"]["duration_ms"] for order in lasting) / 1000
    assert 0.8 < seconds / (orders.BUSY * 6000) < 1.2
    ends = Counter(order.may_end for order in drawn)
    assert ends[orders.COMPLETED] > 4000
    assert len(ends) == 4
    assert {order.body["priority"] for order in drawn} == set(range(101))


def test_rates_count_what_ended_between_two_marks() -> None:
    first, second = rates([0, 999, 1000, 1500, 3000], [("before", 0), ("after", 1000), ("end", 3000)])
    assert (first.when, first.ended, first.per_s) == ("before", 2, 2.0)
    assert (second.when, second.ended, second.per_s) == ("after", 2, 1.0)
