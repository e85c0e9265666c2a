"""The parts of the control plane that the API speaks with; app.py fills it, handlers ask for single parts by name."""

from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import Struct
from prometheus_client.metrics_core import Metric

from muster.api.state import Scenery
from muster.clock import Clock
from muster.control.fleet import Fleet
from muster.control.job_service import JobService
from muster.events.hub import Hub
from muster.ports import EventLog, NodeLink


class Plane(Struct, frozen=True, kw_only=True):
    fleet: Fleet
    ingest: NodeLink
    jobs: JobService
    events: EventLog
    hub: Hub
    scenery: Scenery
    clock: Clock
    metrics: Callable[[], Iterable[Metric]]
    web_dir: Path
    token: str
    request_bytes_max: int
