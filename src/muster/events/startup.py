"""What machines tell of their coming up, as monitors hear it: event by event, beside the state that it leads to."""

from typing import Any

from muster.domain.event import Event, LoggedEvent

CHANNEL = "machine:startup:events"

# The types of messages, by the kind of event.
_TYPES = {
    "machine_startup": "machine_startup",
    "startup_step": "machine_startup_step",
    "service_started": "service_started",
    "service_failed": "service_failed",
    "startup_complete": "machine_startup_complete",
    "startup_failed": "machine_startup_failed",
}

STARTUP_KINDS = frozenset(_TYPES)


def tells_startup(entry: LoggedEvent) -> bool:
    return entry.event.kind in STARTUP_KINDS


def startup_message(event: Event) -> dict[str, Any]:
    """Return what monitors are told of it; the machine may have named its facts as it likes."""
    about = {"type": _TYPES[event.kind], "event": event.kind, "machine_id": event.key, "timestamp": event.at_ms}
    return event.data | about
