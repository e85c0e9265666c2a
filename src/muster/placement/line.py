"""Who waits for a slot, and in which order: priority first, then all who wait take turns, whoever asks how much.

Places are times of a virtual clock, one for each priority, as in the queue of jobs: it stands at the place of whoever
was let in last. One's next request comes a step after one's last, but not before the clock. Who has twice the weight
takes half the step, and so has two turns where others have one.

Lines of several gateways for one model keep about one order: each tells where it stands, and who had turns in it.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

_STEP = 1.0  # of who has weight 1
_PLACE_DIGITS = 6  # places that differ by less were added up in different orders

Turns = Mapping[tuple[int, str], int]  # how many of one's requests were let in, by priority and who


class First(NamedTuple):
    """Who is next in a line, and where the clock of that priority stands there."""

    priority: int
    place: float
    since_s: float
    clock: float

    def goes_before(self, other: "First", lead: float = 0.0) -> bool:
        """Of the same place goes who has waited longer; by `lead` the other line may be ahead."""
        return _order(self, lead) < _order(other, 0.0)


def _order(first: First, later: float) -> tuple[int, float, float]:
    return (-first.priority, round(first.place + later, _PLACE_DIGITS), first.since_s)


class Ticket(Generic[T]):
    """One who waits; `rank` sorts the line, and is a step behind `after`."""

    __slots__ = ("after", "priority", "rank", "since_s", "waits", "weight", "who")

    def __init__(
        self, waits: T, who: str, priority: int, weight: float, since_s: float, after: float, ever: int
    ) -> None:
        self.after = after
        self.rank = (-priority, after + _STEP / weight, ever)
        self.waits = waits
        self.who = who
        self.priority = priority
        self.weight = weight
        self.since_s = since_s


def _rank(ticket: Ticket[T]) -> tuple[int, float, int]:
    return ticket.rank


class Line(Generic[T]):
    """Holds at most as many as its owner lets in; each operation costs little however long it is."""

    def __init__(self) -> None:
        self._tickets: list[Ticket[T]] = []
        self._clocks: dict[int, float] = {}
        self._last: dict[tuple[int, str], float] = {}  # the place of one's newest request
        self._ever = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket[T]]:
        """Go through those that wait now, the first first; they may leave meanwhile."""
        return iter(self._tickets.copy())

    def join(self, waits: T, who: str, priority: int, now_s: float, weight: float = 1.0) -> Ticket[T]:
        self._ever += 1
        after = max(self._clocks.get(priority, 0.0), self._last.get((priority, who), 0.0))
        ticket = Ticket(waits, who, priority, weight, now_s, after, self._ever)
        self._last[priority, who] = ticket.rank[1]
        insort(self._tickets, ticket, key=_rank)
        return ticket

    def place(self, ticket: Ticket[T]) -> int:
        """Return 1 for the first; the ticket must be in the line."""
        return bisect_left(self._tickets, ticket.rank, key=_rank) + 1

    def let_in(self, ticket: Ticket[T]) -> None:
        self._clocks[ticket.priority] = max(self._clocks.get(ticket.priority, 0.0), ticket.rank[1])
        self.leave(ticket)

    def catch_up(self, elsewhere: First) -> None:
        """Have who comes now stand where he would in the line of another gateway."""
        self._clocks[elsewhere.priority] = max(self._clocks.get(elsewhere.priority, 0.0), elsewhere.clock)

    def let_in_elsewhere(self, turns: Turns) -> None:
        """Take a turn for each that was had in another line: it comes as much later in this one."""
        for ticket in self._tickets:
            mine = ticket.priority, ticket.who
            if count := turns.get(mine):
                later = count * _STEP / ticket.weight
                priority, place, ever = ticket.rank
                ticket.rank = (priority, place + later, ever)
                ticket.after += later
                self._last[mine] = max(self._last.get(mine, 0.0), place + later)
        self._tickets.sort(key=_rank)

    def leave(self, ticket: Ticket[T]) -> None:
        """Take it out; whoever is not in the line has left it already."""
        at = bisect_left(self._tickets, ticket.rank, key=_rank)
        if at < len(self._tickets) and self._tickets[at] is ticket:
            del self._tickets[at]
        mine = ticket.priority, ticket.who
        last = self._last.get(mine, 0.0)
        if last == ticket.rank[1]:
            last = self._last[mine] = ticket.after  # a turn that was not taken costs nothing
        if last <= self._clocks.get(ticket.priority, 0.0):
            self._last.pop(mine, None)  # the clock says as much

    @property
    def first(self) -> Ticket[T]:
        return self._tickets[0]

    @property
    def head(self) -> First:
        """Return what other gateways are told of the first."""
        first = self.first
        return First(first.priority, first.rank[1], first.since_s, self._clocks.get(first.priority, 0.0))

    @property
    def last(self) -> Ticket[T]:
        return self._tickets[-1]

    @property
    def oldest_s(self) -> float:
        """Return since when the one waits who waits longest; somebody must."""
        return min(ticket.since_s for ticket in self._tickets)

    def by_who(self) -> Counter[str]:
        return Counter(ticket.who for ticket in self._tickets)

    def weights(self) -> dict[str, float]:
        return {ticket.who: ticket.weight for ticket in self._tickets}
