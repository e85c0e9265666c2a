"""How much room there is for artifacts, and which go to make some. Pure: figures come in, a choice goes out."""

from collections.abc import Iterable
from enum import IntEnum

from msgspec import Struct


class Worth(IntEnum):
    """What the fleet would lose with it, from the least to the most."""

    SPARE = 0  # another node of our pool has it too
    ELSEWHERE = 1  # a node of another pool has it
    ONLY_COPY = 2
    WANTED = 3  # by a service of this node that does not run now, or by the node's file


class Candidate(Struct, frozen=True, kw_only=True):
    digest: str
    size_bytes: int
    last_used_ms: int
    worth: Worth = Worth.ONLY_COPY
    in_use: bool = False


class DiskLimits(Struct, frozen=True, kw_only=True):
    """`disk_bytes_max` for all artifacts together, 0: as much as leaves `free_bytes_min` on the disk."""

    disk_bytes_max: int = 0
    free_bytes_min: int = 0


def shortage_bytes(limits: DiskLimits, more_bytes: int, used_bytes: int, free_bytes: int) -> int:
    """Return how much has to go before `more_bytes` may come; 0: nothing."""
    over = used_bytes + more_bytes - limits.disk_bytes_max if limits.disk_bytes_max else 0
    return max(0, over, more_bytes + limits.free_bytes_min - free_bytes)


def to_evict(kept: Iterable[Candidate], shortage: int) -> list[Candidate] | None:
    """Choose what goes: what is worth least, and of equals what was used longest ago.

    None where not even all of it would do: then none of it need go. What is in use is never chosen.
    """
    chosen: list[Candidate] = []
    for candidate in sorted(kept, key=lambda each: (each.worth, each.last_used_ms)):
        if shortage <= 0:
            break
        if not candidate.in_use:
            chosen.append(candidate)
            shortage -= candidate.size_bytes
    return chosen if shortage <= 0 else None
