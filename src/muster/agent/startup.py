"""Coming up as a list of steps, each told truthfully as it begins and ends."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from msgspec import Struct

from muster.agent.outbox import Teller
from muster.clock import Clock
from muster.domain.node import Phase
from muster.errors import MusterError

log = structlog.get_logger()

Run = Callable[[], Awaitable[dict[str, Any]]]

_SETTLED = frozenset({"service_started", "service_failed"})


class Step(Struct, frozen=True, kw_only=True):
    """`run` returns facts worth telling; `phase` is the node's from here on.

    Where a step that is `required` fails, coming up ends. One that is not `told` shows by its phase alone.
    """

    name: str
    run: Run
    phase: Phase = Phase.STARTING
    required: bool = False
    told: bool = True


class StartupFailed(MusterError):
    """A step without which this machine is of no use."""

    code = "startup_failed"

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(reason)
        self.step = step


async def run_steps(
    steps: Sequence[Step], outbox: Teller, clock: Clock, enter: Callable[[Phase], None]
) -> dict[str, str]:
    """Run all steps in order and return what failed, and why; StartupFailed when a required one did."""
    problems: dict[str, str] = {}
    for step in steps:
        enter(step.phase)
        if step.told:
            outbox.add("startup_step", step=step.name)
        started_s = clock.monotonic_s()
        try:
            facts = await step.run()
        except Exception as error:
            problems[step.name] = error.message if isinstance(error, MusterError) else str(error)
            log.debug("step_error", step=step.name, exc_info=error)
            outbox.add("step_failed", step=step.name, took_ms=_ms_since(started_s, clock), error=problems[step.name])
            if step.required:
                raise StartupFailed(step.name, problems[step.name]) from error
        else:
            if step.told:
                outbox.add("step_done", step=step.name, took_ms=_ms_since(started_s, clock), **facts)
    return problems


class InOrder:
    """A Teller: that services have started is told in the order of their names here, though they start side by side.

    Who waits for one before it that is not there yet is told once that one has started or failed.
    """

    def __init__(self, outbox: Teller, names: Sequence[str]) -> None:
        self._outbox = outbox
        self._waiting = list(names)
        self._early: dict[str, list[tuple[str, dict[str, Any]]]] = {}

    def add(self, kind: str, **data: Any) -> None:
        name = data.get("service")
        if kind not in _SETTLED or name not in self._waiting:
            self._outbox.add(kind, **data)
            return
        self._early.setdefault(name, []).append((kind, data))
        while self._waiting and self._waiting[0] in self._early:
            for early_kind, early_data in self._early.pop(self._waiting.pop(0)):
                self._outbox.add(early_kind, **early_data)


def _ms_since(started_s: float, clock: Clock) -> int:
    return round((clock.monotonic_s() - started_s) * 1000)
