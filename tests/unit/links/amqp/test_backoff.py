import random

from muster.links.amqp.connection import backoff_s


def test_waits_grow_by_five_seconds_up_to_thirty_and_chance_only_shortens_them() -> None:
    rng = random.Random(3)
    for attempt, longest_s in [(1, 5), (2, 10), (5, 25), (6, 30), (7, 30), (10_000, 30)]:
        waits = [backoff_s(attempt, rng) for _ in range(100)]
        assert 0.8 * longest_s <= min(waits) < max(waits) <= longest_s
