"""What is sent now: due, in order within a subject, fair between webhooks, bounded."""

from msgspec.structs import replace

from muster.domain.webhook import Delivery, DeliveryStatus
from muster.webhooks.outbox import Outbox
from muster.webhooks.wanted import new_delivery


def delivery(place: int, webhook_id: str = "a", subject: str = "job-1", due_ms: int = 0) -> Delivery:
    made = new_delivery(webhook_id, "job_failed", subject, f"{place}-0", occurred_at_ms=1, now_ms=due_ms)
    return replace(made, due_at_ms=due_ms)


def outbox(*deliveries: Delivery, at_once: int = 4) -> Outbox:
    box = Outbox(at_once)
    for one in deliveries:
        box.put(one)
    return box


def done(one: Delivery) -> Delivery:
    return replace(one, status=DeliveryStatus.DELIVERED)


def test_of_one_subject_the_next_waits_for_the_one_before() -> None:
    first, second = delivery(1), delivery(2)
    box = outbox(first, second)

    assert box.take(0, 10) == [first]
    assert box.take(0, 10) == []
    box.settle(done(first))
    assert box.take(0, 10) == [second]


def test_addresses_of_jobs_wait_for_their_own_host_alone() -> None:
    slow = [replace(delivery(n, "jobs", f"slow-{n}"), url=f"https://slow.example/{n}") for n in range(3)]
    fast = replace(delivery(9, "jobs", "fast"), url="https://fast.example/")
    box = outbox(*slow, fast, at_once=1)

    assert {one.subject for one in box.take(0, 10)} == {"slow-0", "fast"}
    box.settle(done(fast))
    assert box.take(0, 10) == []
    assert (box.counts()["jobs"], box.webhooks()) == (3, {"jobs"})
    for one in slow:
        box.settle(done(one))
        box.take(0, 10)
    assert (len(box), box.webhooks()) == (0, set())


def test_one_that_is_tried_again_keeps_its_place_before_the_next() -> None:
    first, second = delivery(1), delivery(2)
    box = outbox(first, second)
    box.take(0, 10)
    box.settle(replace(first, due_at_ms=50, attempts=1))

    assert box.take(49, 10) == []
    assert box.next_due_ms() == 50
    assert box.take(50, 10) == [replace(first, due_at_ms=50, attempts=1)]


def test_other_subjects_go_on_meanwhile() -> None:
    stuck, other = delivery(1, due_ms=100), delivery(2, subject="job-2")
    assert outbox(stuck, other).take(0, 10) == [other]


def test_one_webhook_has_a_few_at_a_time_and_does_not_hold_up_the_others() -> None:
    slow = [delivery(place, subject=f"job-{place}") for place in range(20)]
    quick = delivery(30, "b")
    box = outbox(*slow, quick, at_once=3)

    assert box.take(0, 100) == [slow[0], quick, slow[1], slow[2]]
    assert box.take(0, 100) == []
    box.settle(done(slow[1]))
    assert box.take(0, 100) == [slow[3]]


def test_little_room_is_shared_in_turn() -> None:
    box = outbox(*(delivery(place, hook, f"job-{place}") for place in range(4) for hook in "abc"))
    assert [one.webhook_id for _ in range(4) for one in box.take(0, 1)] == ["a", "b", "c", "a"]


def test_a_paused_webhook_keeps_what_waits() -> None:
    box = outbox(delivery(1), delivery(2, "b"))
    assert [one.webhook_id for one in box.take(0, 10, frozenset("a"))] == ["b"]
    assert box.next_due_ms(frozenset("a")) is None
    assert [one.webhook_id for one in box.take(0, 10)] == ["a"]


def test_what_is_here_already_is_not_added_twice() -> None:
    box = outbox(delivery(1), delivery(1))
    assert len(box) == 1
    assert delivery(1).delivery_id in box


def test_a_removed_webhook_is_forgotten_even_while_it_is_told() -> None:
    first = delivery(1)
    box = outbox(first, delivery(2))
    box.take(0, 10)
    box.forget("a")
    box.settle(done(first))

    box.forget("a")
    assert len(box) == box.counts()["a"] == 0
    assert box.webhooks() == set()


def test_what_waits_is_counted_by_webhook() -> None:
    first = delivery(1)
    box = outbox(first, delivery(2), delivery(3, "b"))
    box.take(0, 1)
    box.settle(done(first))
    assert (box.counts()["a"], box.counts()["b"]) == (1, 1)


def test_a_removed_webhook_takes_nothing_of_the_others_with_it() -> None:
    kept = delivery(2, "b", "job-2")
    box = outbox(delivery(1, "a"), kept)
    box.forget("a")
    assert box.take(0, 10) == [kept]
