"""What happened, in order: kept for a while per subject, and hashed as a whole."""

from collections import defaultdict, deque
from hashlib import blake2b

from muster.sim.timeline import START_MS, Timeline

_LINES_MAX = 40  # per subject: enough to see how it came to this


class Stories:
    """A job's and a node's story is told when a rule is broken; equal hashes mean equal worlds."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._lines: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_LINES_MAX))
        self._hash = blake2b(digest_size=8)

    def tell(self, subject: str, what: str) -> None:
        at_s = (self._timeline.now_ms() - START_MS) / 1000
        self._lines[subject].append(f"{at_s:10.3f} s  {what}")
        self._hash.update(f"{at_s} {subject} {what}\n".encode())

    def of(self, subject: str) -> tuple[str, ...]:
        return tuple(self._lines.get(subject, ()))

    def digest(self) -> str:
        return self._hash.hexdigest()
