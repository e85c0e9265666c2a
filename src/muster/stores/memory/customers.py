import math
from collections.abc import Iterable

from muster.domain.job import ACTIVE, TERMINAL
from muster.domain.queue import CustomerFigures, CustomerTerms
from muster.stores.memory.records import Record


class Customers:
    """What is set for customers, and what follows from it."""

    def __init__(self) -> None:
        self.terms: dict[str, CustomerTerms] = {}

    def weight(self, name: str | None) -> int:
        return self._of(name).weight

    def room(self, name: str | None, records: Iterable[Record]) -> float:
        """Return how many more of its jobs may run."""
        most = self._of(name).running_max
        return math.inf if name is None or most is None else most - self.figures(name, records).running

    def waiting_max(self, name: str | None) -> float:
        most = self._of(name).waiting_max
        return math.inf if most is None else most

    def figures(self, name: str, records: Iterable[Record]) -> CustomerFigures:
        states = [record.state.status for record in records if record.spec.customer_id == name]
        running = sum(status in ACTIVE for status in states)
        waiting = sum(status not in TERMINAL for status in states) - running
        return CustomerFigures(name=name, terms=self.terms.get(name), waiting=waiting, running=running)

    def _of(self, name: str | None) -> CustomerTerms:
        return self.terms.get(name or "", CustomerTerms())
