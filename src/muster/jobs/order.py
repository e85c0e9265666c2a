"""Who comes first: priority, then first come. The score keeps both in one number that a double holds exactly."""

from muster.domain.job import JobSpec

PRIORITY_MAX = 100
SEQUENCE_MAX = 2**44 - 1  # 500 years at 1,000 jobs a second; all scores stay below 2**51, a double is exact to 2**53


def score(priority: int, sequence: int) -> int:
    """Return the place in line, lowest first. `sequence` is the store's count of submits; a retry keeps its own."""
    if not 0 <= priority <= PRIORITY_MAX:
        raise ValueError(f"priority must be 0 to {PRIORITY_MAX}, got {priority}")
    if not 0 <= sequence <= SEQUENCE_MAX:
        raise ValueError(f"sequence must be 0 to {SEQUENCE_MAX}, got {sequence}")
    return (PRIORITY_MAX - priority) * (SEQUENCE_MAX + 1) + sequence


def priority_of(score: float) -> int:
    return PRIORITY_MAX - int(score) // (SEQUENCE_MAX + 1)


def order_priority(spec: JobSpec) -> int:
    """Return the priority that counts: steps of a workflow share the workflow's, so that they stay together."""
    return spec.priority if spec.workflow_priority is None else spec.workflow_priority
