import random

from muster.agent.backoff import Backoff
from muster.agent.services.restarts import Restarts

STEADY = Backoff(base_s=1.0, max_s=30.0, jitter=0.0)


def test_pauses_double_up_to_a_limit() -> None:
    rng = random.Random(1)
    assert [STEADY.delay_s(failures, rng) for failures in (1, 2, 3, 5, 6, 7, 5000)] == [1, 2, 4, 16, 30, 30, 30]
    assert all(0.75 <= Backoff().delay_s(1, rng) <= 1.0 for _ in range(100))


def test_a_service_is_started_again_so_often_and_no_more() -> None:
    restarts = Restarts(3, STEADY, random.Random(1))
    assert [restarts.next_delay_s(0.0) for _ in range(4)] == [1.0, 2.0, 4.0, None]
    assert restarts.total == 3


def test_a_good_run_begins_the_count_anew() -> None:
    restarts = Restarts(1, STEADY, random.Random(1))
    assert restarts.next_delay_s(0.0) == 1.0
    assert restarts.next_delay_s(3600.0) == 1.0
    assert restarts.next_delay_s(5.0) is None
    assert restarts.total == 2
