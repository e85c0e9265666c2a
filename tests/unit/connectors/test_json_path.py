from typing import Any

import pytest

from muster.connectors.json_path import demand, find
from muster.errors import UpstreamFailed

ANSWER = {"job": {"id": "a", "out": [{"n": 1}, None]}, "": 0}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", ANSWER),
        ("job.id", "a"),
        ("job.out.0.n", 1),
        ("job.out.1", None),
        ("job.out.2", None),
        ("job.out.x", None),
        ("job.id.more", None),
        ("none.at.all", None),
    ],
)
def test_a_value_is_found_by_keys_and_numbers(path: str, found: Any) -> None:
    assert find(ANSWER, path) == found


def test_what_must_be_there_is_named_when_it_is_not() -> None:
    assert demand(ANSWER, "job.id", "the answer") == "a"
    with pytest.raises(UpstreamFailed, match=r"the answer has nothing at 'job\.no'"):
        demand(ANSWER, "job.no", "the answer")
