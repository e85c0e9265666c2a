from muster.domain.job import JobSpec
from muster.jobs import order
from muster.stores.memory.customers import Customers


class Ranks:
    """Which place in line a new job gets; the rule is in jobs/order.py."""

    def __init__(self, customers: Customers) -> None:
        self._customers = customers
        self._clocks: dict[int, int] = {}  # by priority: the highest place that was claimed
        self._tags: dict[tuple[str | None, int], float] = {}  # by customer and priority: virtual time of its last job
        self._workflows: dict[tuple[str, int], int] = {}  # by name and priority: the place of its first job

    def next_score(self, spec: JobSpec) -> int:
        priority = order.order_priority(spec)
        who = (spec.customer_id, priority)
        tag = order.next_tag(self._clocks.get(priority, 0), self._tags.get(who, 0), self._customers.weight(who[0]))
        self._tags[who] = tag
        place = order.place_at(tag)
        if spec.workflow_id is not None:
            place = self._workflows.setdefault((spec.workflow_id, priority), place)
        return order.score(priority, place)

    def claimed(self, score: int) -> None:
        priority = order.priority_of(score)
        self._clocks[priority] = max(self._clocks.get(priority, 0), order.place_of(score))

    def forget(self, specs: list[JobSpec]) -> None:
        """Forget the workflows and customers that have no jobs but these."""
        workflows = {spec.workflow_id for spec in specs}
        customers = {spec.customer_id for spec in specs} | {None}
        self._workflows = {key: place for key, place in self._workflows.items() if key[0] in workflows}
        self._tags = {key: tag for key, tag in self._tags.items() if key[0] in customers}
