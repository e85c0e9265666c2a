"""How a node came up the last time: the steps that its agent told, read from the log of facts."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from msgspec import Struct

from muster.domain.event import Event
from muster.domain.node import Node
from muster.ports import EventLog

_MARGIN_MS = 10_000  # the first facts may come just before the registration
_LONGEST_MS = 2 * 3_600_000  # with models to fetch; what comes later is not looked for
_EVENTS_PER_PAGE = 1_000
_PAGES_MAX = 50
_STATES: dict[str, Literal["complete", "failed"]] = {"startup_complete": "complete", "startup_failed": "failed"}
_STEP_STATES: dict[str, Literal["running", "done", "failed"]] = {
    "startup_step": "running",
    "step_done": "done",
    "step_failed": "failed",
}


class StartupStep(Struct, frozen=True, kw_only=True):
    """`took_ms` is the agent's own measure, null while the step runs."""

    name: str
    state: Literal["running", "done", "failed"]
    took_ms: int | None = None
    error: str | None = None


class StartedService(Struct, frozen=True, kw_only=True):
    name: str
    started: bool
    took_s: float | None = None
    error: str | None = None


class Startup(Struct, frozen=True, kw_only=True):
    """`state` is unknown where no step is told of, or the log keeps none of it any more; `begun_at` is in ms."""

    node_id: str
    state: Literal["unknown", "starting", "complete", "failed"] = "unknown"
    boot_id: str | None = None
    begun_at: int | None = None
    took_s: float | None = None
    workers: int | None = None
    reason: str | None = None
    steps: tuple[StartupStep, ...] = ()
    services: tuple[StartedService, ...] = ()


async def last_startup(log: EventLog, node: Node) -> Startup:
    """Read on from when this boot was first heard, until it is told that it has come up or has not."""
    facts: list[Event] = []
    after = await log.since(node.booted_at_ms - _MARGIN_MS)
    for _ in range(_PAGES_MAX):
        page = await log.read(after, _EVENTS_PER_PAGE)
        facts += (entry.event for entry in page if entry.event.key == node.node_id)
        ended = any(event.kind in _STATES for event in of_last_boot(facts))
        if ended or len(page) < _EVENTS_PER_PAGE or page[-1].event.at_ms > node.booted_at_ms + _LONGEST_MS:
            break
        after = page[-1].id
    return startup_of(node.node_id, of_last_boot(facts))


def of_last_boot(facts: Iterable[Event]) -> list[Event]:
    """Return the facts from the first word of the last boot on, as far as its end."""
    found: list[Event] = []
    boot_id: Any = None
    ended = False
    for event in facts:
        if event.kind == "machine_startup" and event.data.get("boot_id") != boot_id:
            found, boot_id, ended = [], event.data.get("boot_id"), False
        if boot_id is not None and not ended:
            found.append(event)
            ended = event.kind in _STATES
    return found


def startup_of(node_id: str, facts: Sequence[Event]) -> Startup:
    """Put together what the facts of one boot tell, the first of which is that it begins."""
    if not facts:
        return Startup(node_id=node_id)
    first, last = facts[0], facts[-1]
    steps: dict[str, StartupStep] = {}
    services: dict[str, StartedService] = {}
    for event in facts:
        if (step := _step(event)) is not None:
            steps[step.name] = step
        elif (service := _service(event)) is not None:
            services[service.name] = service
    return Startup(
        node_id=node_id,
        state=_STATES.get(last.kind, "starting"),
        boot_id=first.data["boot_id"],
        begun_at=first.at_ms,
        took_s=last.data.get("took_s") if last.kind in _STATES else None,
        workers=last.data.get("worker_count"),
        reason=last.data.get("reason") if last.kind == "startup_failed" else None,
        steps=tuple(steps.values()),
        services=tuple(services.values()),
    )


def _step(event: Event) -> StartupStep | None:
    state = _STEP_STATES.get(event.kind)
    if state is None:
        return None
    data = event.data
    return StartupStep(name=str(data.get("step")), state=state, took_ms=data.get("took_ms"), error=data.get("error"))


def _service(event: Event) -> StartedService | None:
    if event.kind not in {"service_started", "service_failed"}:
        return None
    data = event.data
    return StartedService(
        name=str(data.get("service")),
        started=event.kind == "service_started",
        took_s=data.get("took_s"),
        error=data.get("reason"),
    )
