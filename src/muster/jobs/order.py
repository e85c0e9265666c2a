"""Who comes first: priority, then the place in line. The score keeps both in one number that a double holds exactly.

Places are times of a virtual clock, one for each priority: it stands at the place of the last job that was claimed. A
customer's next job comes one step after its last one, but not before the clock; a step is shorter for a customer of
more weight. So those who wait take turns, whoever submitted how much before, and those who come later do not pay for
the others having had the fleet for themselves. Jobs that name no customer are one customer's: theirs stay first come,
first served. Equal places of two customers go by id.
"""

import math

from muster.domain.job import JobSpec

PRIORITY_MAX = 100
PLACE_MAX = 2**46 - 1  # all scores stay below 2**53, to which a double is exact
STEP = 100  # of a customer of weight 1; 2**46 has 22 years of a thousand such steps a second
WEIGHT_MAX = 100  # a step is 1 at least, so that no two jobs of a customer share a place


def score(priority: int, place: int) -> int:
    """Return the rank in line, lowest first; a retry keeps its own."""
    if not 0 <= priority <= PRIORITY_MAX:
        raise ValueError(f"priority must be 0 to {PRIORITY_MAX}, got {priority}")
    if not 0 <= place <= PLACE_MAX:
        raise ValueError(f"place must be 0 to {PLACE_MAX}, got {place}")
    return (PRIORITY_MAX - priority) * (PLACE_MAX + 1) + place


def priority_of(score: float) -> int:
    return PRIORITY_MAX - int(score) // (PLACE_MAX + 1)


def place_of(score: float) -> int:
    return int(score) % (PLACE_MAX + 1)


def next_tag(clock: float, last: float, weight: int) -> float:
    """Return the virtual time of a customer's next job, of which the whole part is its place."""
    return max(clock, last) + STEP / weight


def place_at(tag: float) -> int:
    return math.floor(tag)


def order_priority(spec: JobSpec) -> int:
    """Return the priority that counts: steps of a workflow share the workflow's, so that they stay together."""
    return spec.priority if spec.workflow_priority is None else spec.workflow_priority
