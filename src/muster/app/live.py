"""What is told live: facts and states to monitors, signs of life to whoever follows nodes."""

from muster.api.hives import TelemetryScenery
from muster.api.plane import TelemetryParts
from muster.api.state import GatewayFigures, Scenery
from muster.clock import Clock, Rng
from muster.control.fleet.fleet import Fleet
from muster.control.fleet.history import History
from muster.control.fleet.hives import Hives
from muster.control.jobs.engine_jobs import EngineJobs
from muster.control.jobs.service import PROGRESS_TOPIC
from muster.events.hub import Hub, HubLimits
from muster.events.telemetry import Telemetry, TelemetryLimits
from muster.gateway.gateway import Gateway
from muster.ports import NodeLink
from muster.settings import Settings
from muster.stores.valkey import ValkeyStore


def open_hub(
    store: ValkeyStore, fleet: Fleet, scenery: Scenery, engine_jobs: EngineJobs, clock: Clock, settings: Settings
) -> Hub:
    limits = HubLimits(reader_bytes_max=settings.stream_buffer_bytes_max)
    hub = Hub(store.log, store.bus, scenery, clock, limits, progress_topic=PROGRESS_TOPIC)
    hub.on_facts(engine_jobs.hear)
    fleet.on_change(hub.nodes_changed)
    return hub


def telemetry_parts(
    fleet: Fleet, link: NodeLink, clock: Clock, rng: Rng, settings: Settings, interval_s: float
) -> TelemetryParts:
    """`interval_s` is how often hives are to report that do not say it themselves."""
    limits = TelemetryLimits(reader_bytes_max=settings.stream_buffer_bytes_max)
    stream = Telemetry(TelemetryScenery(fleet, clock), clock, limits)
    history = History(fleet.book, clock)
    fleet.on_change(stream.nodes_changed)
    fleet.on_change(history.nodes_changed)
    hives = Hives(fleet, link, clock, rng, interval_s=interval_s)
    return TelemetryParts(hives=hives, history=history, stream=stream)


def figures_of(gateway: Gateway) -> GatewayFigures:
    stats = gateway.stats()
    return GatewayFigures(
        in_flight=stats.in_flight, requests_total=stats.requests_total, errors_total=stats.errors_total
    )
