"""What several Ollama servers say while they fetch one model, told as one of them would."""

from collections.abc import Iterable

from muster.placement.candidate import Candidate

_BYTES_PER_MB = 1024 * 1024


class Merged:
    """Bytes are added up by part; a word that was said by one is not said again by the next."""

    def __init__(self) -> None:
        self._said: set[object] = set()
        self._parts: dict[object, dict[str, tuple[int, int]]] = {}

    def take(self, worker: str, line: dict[str, object]) -> dict[str, object] | None:
        """Return the line to tell, if there is one."""
        digest = line.get("digest")
        if digest is None:
            status = line.get("status")
            if status in self._said:
                return None
            self._said.add(status)
            return line
        part = self._parts.setdefault(digest, {})
        part[worker] = (_count(line.get("total")), _count(line.get("completed")))
        total, completed = (sum(figures) for figures in zip(*part.values(), strict=True))
        return line | {"total": total} | ({"completed": completed} if completed else {})


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def most_room(candidates: Iterable[Candidate], size_bytes: int | None) -> list[Candidate]:
    """Return those on whose disk a model of this size fits, best first: GPU memory for it, then free memory and disk.

    What a node does not tell speaks neither for nor against it.
    """
    size_mb = (size_bytes or 0) // _BYTES_PER_MB

    def rank(candidate: Candidate) -> tuple[bool, int, int, str]:
        memory_mb = candidate.memory_total_mb or 0
        return (
            memory_mb < size_mb,
            -(candidate.memory_free_mb or 0),
            -(candidate.disk_free_mb or 0),
            candidate.key,
        )

    fits = [c for c in candidates if c.disk_free_mb is None or c.disk_free_mb > size_mb]
    return sorted(fits, key=rank)
