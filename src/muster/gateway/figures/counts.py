"""What a gateway has counted since its start, as data: so that several side by side are added up to one."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from msgspec import Struct, field

K = TypeVar("K")


class Times(Struct):
    """How long the answers of one model took to their first byte and to their end: counts by bucket, and sums."""

    first_byte: list[int]
    duration: list[int]
    first_byte_s: float = 0.0
    duration_s: float = 0.0

    def add(self, other: "Times") -> None:
        self.first_byte = [one + more for one, more in zip(self.first_byte, other.first_byte, strict=True)]
        self.duration = [one + more for one, more in zip(self.duration, other.duration, strict=True)]
        self.first_byte_s += other.first_byte_s
        self.duration_s += other.duration_s


class Counts(Struct):
    requests: dict[tuple[str, int], int] = field(default_factory=dict)  # by path and status
    times: dict[str, Times] = field(default_factory=dict)  # by model
    upstream_failures: dict[tuple[str, ...], int] = field(default_factory=dict)  # by worker and reason
    bytes_sent: int = 0

    def add(self, other: "Counts") -> None:
        add_up(self.requests, other.requests)
        add_up(self.upstream_failures, other.upstream_failures)
        self.bytes_sent += other.bytes_sent
        for model, times in other.times.items():
            self.times.setdefault(model, Times([0] * len(times.first_byte), [0] * len(times.duration))).add(times)


def together(all_counts: Iterable[Counts]) -> Counts:
    """Return a sum that shares nothing with what it is made of."""
    total = Counts()
    for counts in all_counts:
        total.add(counts)
    return total


def add_up(into: dict[K, int], more: Mapping[K, int]) -> None:
    for key, count in more.items():
        into[key] = into.get(key, 0) + count
