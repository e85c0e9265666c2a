"""What is to be sent, and what of it now: of one subject one after the other, to one receiver a few at a time."""

import heapq
from collections import Counter, deque
from urllib.parse import urlsplit

from muster.domain.webhook import Delivery, DeliveryStatus


class _Line:
    """The deliveries of one webhook: by subject in their order, and when the first of each subject is due.

    Those to addresses of jobs have a line for each host: a slow one holds up only its own.
    """

    __slots__ = ("by_subject", "count", "due", "in_flight", "turn", "webhook_id")

    def __init__(self, webhook_id: str) -> None:
        self.webhook_id = webhook_id
        self.by_subject: dict[str, deque[Delivery]] = {}
        self.due: list[tuple[int, int, str]] = []
        self.count = 0
        self.in_flight = 0
        self.turn = 0

    def wait(self, subject: str) -> None:
        self.turn += 1
        heapq.heappush(self.due, (self.by_subject[subject][0].due_at_ms, self.turn, subject))


class Outbox:
    def __init__(self, at_once_per_hook: int) -> None:
        self._at_once = at_once_per_hook
        self._lines: dict[str, _Line] = {}
        self._ids: set[str] = set()

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, delivery_id: str) -> bool:
        return delivery_id in self._ids

    def counts(self) -> Counter[str]:
        """Return how many are for each webhook."""
        counts: Counter[str] = Counter()
        for line in self._lines.values():
            counts[line.webhook_id] += line.count
        return counts

    def put(self, delivery: Delivery) -> None:
        """Add what is to be sent, in the order of the log; what is here already stays as it is."""
        if delivery.delivery_id in self._ids:
            return
        self._ids.add(delivery.delivery_id)
        line = self._lines.setdefault(_line_of(delivery), _Line(delivery.webhook_id))
        line.count += 1
        waiting = line.by_subject.setdefault(delivery.subject, deque())
        waiting.append(delivery)
        if len(waiting) == 1:
            line.wait(delivery.subject)

    def take(self, now_ms: int, room: int, paused: frozenset[str] = frozenset()) -> list[Delivery]:
        """Take at most `room` that are due, from all webhooks in turn; each is then settled once."""
        taken: list[Delivery] = []
        lines = [line for line in self._lines.values() if line.webhook_id not in paused]
        while lines and len(taken) < room:
            lines = [line for line in lines if line.due and line.due[0][0] <= now_ms and line.in_flight < self._at_once]
            for line in lines[: room - len(taken)]:
                _, _, subject = heapq.heappop(line.due)
                line.in_flight += 1
                taken.append(line.by_subject[subject][0])
        if taken:  # who was served first is the last one to be asked the next time
            first = _line_of(taken[0])
            self._lines[first] = self._lines.pop(first)
        return taken

    def settle(self, delivery: Delivery) -> None:
        """Take back what was taken, as it stands now."""
        line = self._lines.get(_line_of(delivery))
        if line is None or delivery.delivery_id not in self._ids:
            return  # the webhook was removed meanwhile
        line.in_flight -= 1
        waiting = line.by_subject[delivery.subject]
        if delivery.status is DeliveryStatus.PENDING:
            waiting[0] = delivery
        else:
            waiting.popleft()
            line.count -= 1
            self._ids.discard(delivery.delivery_id)
        if waiting:
            line.wait(delivery.subject)
        else:
            del line.by_subject[delivery.subject]
            if not line.by_subject:
                del self._lines[_line_of(delivery)]

    def forget(self, webhook_id: str) -> None:
        for name, line in list(self._lines.items()):
            if line.webhook_id == webhook_id:
                del self._lines[name]
                self._ids -= {delivery.delivery_id for waiting in line.by_subject.values() for delivery in waiting}

    def webhooks(self) -> set[str]:
        return {line.webhook_id for line in self._lines.values()}

    def next_due_ms(self, paused: frozenset[str] = frozenset()) -> int | None:
        """Return when the next one is due of those that could be taken."""
        times = [
            line.due[0][0]
            for line in self._lines.values()
            if line.webhook_id not in paused and line.due and line.in_flight < self._at_once
        ]
        return min(times, default=None)


def _line_of(delivery: Delivery) -> str:
    return delivery.webhook_id if delivery.url is None else f"{delivery.webhook_id} {urlsplit(delivery.url).netloc}"
