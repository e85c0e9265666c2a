"""A short form of `make soak`: many requests with random faults and callers who leave, and nothing left over."""

from bench.gateway_soak import soak


async def test_thousands_of_requests_with_random_faults_leave_nothing_behind():
    left = await soak(requests=1000, seed=3)
    assert left.requests >= 1000
    assert left.leaks == 0, left
    assert left.outcomes["left"] > 100
    assert left.outcomes["200"] > 600
    assert set(left.outcomes) <= {"200", "left", "told", "502", "503", "504", "lost"}, left.outcomes
