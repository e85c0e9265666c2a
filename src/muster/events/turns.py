"""Whose turn it is to be told: some readers at a time, each everything that came since its last turn.

To hand bytes to a reader costs the same however few they are. A thousand readers told of each event at once would take
all of a core, and told together every so often would hold up everybody else meanwhile. So each turn serves a bounded
number of them: few readers are told at once, and with more of them each waits for a few turns.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from msgspec import Struct

from muster.events.reader import Reader
from muster.events.selection import Concerns


class Told(Struct, frozen=True):
    """A frame, and of those who chose whom it concerns; None is all of them."""

    frame: bytes
    concerns: Concerns | None = None
    to_choosers_only: bool = False


class Turns:
    def __init__(self, readers_per_turn: int) -> None:
        self._readers_per_turn = readers_per_turn
        self._told: deque[Sequence[Told]] = deque()  # what the reader whose turn it is next has yet to get
        self._first = 0  # the number of the first of them
        self._waiting: dict[Reader, int] = {}  # from which on it gets them; who waits longest comes first

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Reader]:
        return iter(self._waiting)

    @property
    def _end(self) -> int:
        return self._first + len(self._told)

    @contextmanager
    def reader(self, reader: Reader) -> Iterator[None]:
        """Count it in for as long as it listens: it gets what is told from now on."""
        self._waiting[reader] = self._end
        try:
            yield
        finally:
            del self._waiting[reader]
            self._forget()

    def tell(self, told: Sequence[Told]) -> None:
        if told and self._waiting:
            self._told.append(told)

    def lose(self, why: str) -> None:
        """Let all of them begin anew."""
        self._first = self._end
        self._told.clear()
        for reader in self._waiting:
            self._waiting[reader] = self._first
            reader.lose(why)

    def turn(self) -> None:
        """Serve those who waited longest, if there is something to get."""
        if not self._told:
            return
        joined: dict[int, bytes] = {}  # who waited equally long gets the same bytes as all the others
        for reader in list(islice(self._waiting, self._readers_per_turn)):
            at = self._waiting.pop(reader)
            self._waiting[reader] = self._end
            selection = reader.selection
            if selection is not None:
                ready = b"".join([one.frame for one in self._since(at) if not one.concerns or one.concerns(selection)])
            elif (known := joined.get(at)) is not None:
                ready = known
            else:
                ready = joined[at] = b"".join([one.frame for one in self._since(at) if not one.to_choosers_only])
            if ready:
                reader.push(ready)
        self._forget()

    def _since(self, at: int) -> Iterable[Told]:
        return (each for told in islice(self._told, at - self._first, None) for each in told)

    def _forget(self) -> None:
        """Drop what all have got."""
        oldest = next(iter(self._waiting.values()), self._end)
        while self._first < oldest:
            self._told.popleft()
            self._first += 1
