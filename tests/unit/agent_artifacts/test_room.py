from typing import Any

import pytest

from muster.agent.artifacts.room import Candidate, DiskLimits, Worth, shortage_bytes, to_evict


def kept(digest: str, **more: Any) -> Candidate:
    known: dict[str, Any] = {"digest": digest, "size_bytes": 10, "last_used_ms": 0}
    return Candidate(**(known | more))


def gone(candidates: list[Candidate], shortage: int) -> list[str] | None:
    chosen = to_evict(candidates, shortage)
    return None if chosen is None else [candidate.digest for candidate in chosen]


@pytest.mark.parametrize(
    ("limits", "more", "used", "free", "short"),
    [
        (DiskLimits(), 100, 0, 100, 0),
        (DiskLimits(), 100, 0, 99, 1),
        (DiskLimits(free_bytes_min=50), 100, 0, 100, 50),
        (DiskLimits(disk_bytes_max=150), 100, 50, 10_000, 0),
        (DiskLimits(disk_bytes_max=150), 100, 60, 10_000, 10),
        (DiskLimits(disk_bytes_max=150, free_bytes_min=50), 100, 60, 100, 50),
        (DiskLimits(disk_bytes_max=150), 0, 200, 10_000, 50),
    ],
)
def test_how_much_has_to_go(limits: DiskLimits, more: int, used: int, free: int, short: int) -> None:
    assert shortage_bytes(limits, more, used, free) == short


def test_what_was_used_longest_ago_goes_and_no_more_than_needed() -> None:
    candidates = [kept("new", last_used_ms=3), kept("old", last_used_ms=1), kept("older", last_used_ms=0)]
    assert gone(candidates, 0) == []
    assert gone(candidates, 10) == ["older"]
    assert gone(candidates, 11) == ["older", "old"]


def test_what_the_fleet_would_miss_goes_last() -> None:
    candidates = [
        kept("wanted", worth=Worth.WANTED, last_used_ms=0),
        kept("only", worth=Worth.ONLY_COPY, last_used_ms=1),
        kept("elsewhere", worth=Worth.ELSEWHERE, last_used_ms=2),
        kept("spare", worth=Worth.SPARE, last_used_ms=3),
    ]
    assert gone(candidates, 40) == ["spare", "elsewhere", "only", "wanted"]
    assert gone(candidates, 15) == ["spare", "elsewhere"]


def test_what_is_in_use_never_goes() -> None:
    candidates = [kept("used", worth=Worth.SPARE, in_use=True), kept("wanted", worth=Worth.WANTED)]
    assert gone(candidates, 10) == ["wanted"]


def test_where_it_would_not_do_nothing_goes() -> None:
    assert gone([kept("a"), kept("b", in_use=True)], 11) is None
    assert gone([], 1) is None
