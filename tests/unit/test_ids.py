import random

import pytest

from muster.errors import InvalidInput
from muster.ids import check_name, check_node_id, new_id, worker_id


def test_ids_sort_by_time_and_differ_by_chance() -> None:
    rng = random.Random(1)
    made = [new_id("job", at_ms, rng) for at_ms in (1, 2, 1_763_000_000_000, 1_763_000_000_001)]
    assert made == sorted(made)
    assert new_id("job", 5, rng) != new_id("job", 5, rng)
    assert all(len(one) == len("job-") + 20 for one in made)


@pytest.mark.parametrize("bad", ["", " ", "unknown", "Unknown", "none", "null", "a/b", "-x", "x" * 129, "ü"])
def test_a_node_id_that_names_nothing_is_refused(bad: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_node_id(bad)
    assert caught.value.field == "node_id"


def test_good_names_pass() -> None:
    assert check_name("gpu-box.lan:1", "x") == "gpu-box.lan:1"
    assert worker_id(check_node_id("m"), 3) == "m-worker-3"
