"""Figures of what only the composition of a control plane knows all of."""

from collections.abc import Iterator

from muster import metrics as m
from muster.app.broker import Broker
from muster.app.cloud import Cloud
from muster.app.gateway_workers import GatewayWorkers
from muster.control.fleet.fleet import Fleet
from muster.control.fleet.peers import Peers
from muster.control.ingest import Ingests
from muster.control.leader import Leader
from muster.control.metering import Metering
from muster.control.recorder import Recorder
from muster.control.sweep import Sweep
from muster.gateway.gateway import Gateway
from muster.metrics import Metric


def metrics_of(
    fleet: Fleet,
    gateway: Gateway,
    metering: Metering,
    recorder: Recorder,
    sweep: Sweep,
    ingests: Ingests,
    peers: Peers,
    leader: Leader,
    broker: Broker,
    cloud: Cloud | None,
    workers: GatewayWorkers | None,
) -> Iterator[Metric]:
    yield from gateway.metrics()
    yield from gateway.siblings.with_samples(metering.metrics())
    if workers is not None:
        yield from workers.metrics()
    yield from broker.metrics()
    if cloud is not None:
        yield from cloud.metrics()
    yield m.HEARTBEATS.of({(ingest.link,): ingest.heartbeats for ingest in ingests.made})
    yield m.REGISTRATIONS.of({(ingest.link,): ingest.registrations for ingest in ingests.made})
    yield m.LEASES_LOST.of({(why,): count for why, count in sweep.leases_lost.items()})
    yield m.RECORDER_BACKLOG.of({(what,): count for what, count in recorder.backlog.items()})
    yield m.EVENTS_DROPPED.single(recorder.events_dropped)
    yield m.PLANES.single(1 + len(peers.planes))
    yield m.LEADS.single(int(leader.leads))
    yield m.SUSPECTS.single(int(fleet.book.suspects_itself))
