"""Coming up as a list of steps, each told truthfully as it begins and ends."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from msgspec import Struct

from muster.agent.outbox import Outbox
from muster.clock import Clock
from muster.domain.node import Phase
from muster.errors import MusterError

log = structlog.get_logger()


class Step(Struct, frozen=True):
    """`run` returns facts worth telling; `phase` is the node's from here on."""

    name: str
    phase: Phase
    run: Callable[[], Awaitable[dict[str, Any]]]


async def run_steps(
    steps: Sequence[Step], outbox: Outbox, clock: Clock, enter: Callable[[Phase], None]
) -> dict[str, str]:
    """Run all steps in order; one that fails does not keep the node from coming up. Return what failed, and why."""
    problems: dict[str, str] = {}
    for step in steps:
        enter(step.phase)
        outbox.add("step_started", step=step.name)
        started_s = clock.monotonic_s()
        try:
            facts = await step.run()
        except Exception as error:
            problems[step.name] = error.message if isinstance(error, MusterError) else str(error)
            log.debug("step_error", step=step.name, exc_info=error)
            outbox.add("step_failed", step=step.name, took_ms=_ms_since(started_s, clock), error=problems[step.name])
        else:
            outbox.add("step_done", step=step.name, took_ms=_ms_since(started_s, clock), **facts)
    return problems


def _ms_since(started_s: float, clock: Clock) -> int:
    return round((clock.monotonic_s() - started_s) * 1000)
