"""A short form of `make soak`: many requests with random faults and callers who leave, and nothing left over."""

from bench.gateway_soak import soak


async def test_hundreds_of_requests_with_random_faults_leave_nothing_behind_and_none_ends_without_a_word():
    soaked = await soak(requests=400, seed=3)
    assert soaked.problems == []
    assert soaked.outcomes["answered"] > 100
    assert soaked.outcomes["left"] > 20
    assert set(soaked.outcomes) <= {"answered", "left", "closed", "told", "429", "502", "503", "504"}
