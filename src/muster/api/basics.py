"""Health, version, metrics, the API's own description."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from litestar import MediaType, Response, get
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from muster import __version__
from muster.api.node_metrics import node_metrics
from muster.api.plane import AnyRequest, ThePlane
from muster.domain.node import Health
from muster.gateway.usage import Metric, Sample


@get("/health", tags=["basics"], summary="Is the control plane up?")
async def health(request: AnyRequest) -> Response[Any]:
    if "application/json" in request.headers.get("accept", ""):
        return Response({"status": "ok", "version": __version__})
    return Response("ok", media_type=MediaType.TEXT)


@get("/version", tags=["basics"], summary="Which version runs")
async def version() -> dict[str, str]:
    return {"version": __version__, "name": "muster"}


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        for metric in self._families:
            family = Family(metric.name, metric.help, metric.kind)
            for sample in metric.samples:
                family.add_sample(metric.name + sample.suffix, sample.labels, sample.value)
            yield family


@get("/metrics", tags=["basics"], summary="Prometheus metrics", media_type=MediaType.TEXT)
async def metrics(plane: ThePlane) -> Response[bytes]:
    nodes = plane.fleet.nodes()
    by_health = Counter(node.health for node in nodes)
    counts = await plane.jobs.counts()
    own = [
        _gauge("muster_nodes", "Nodes by health.", {("health", health.value): by_health[health] for health in Health}),
        _gauge("muster_jobs", "Jobs by status.", {("status", status.value): n for status, n in counts.items()}),
        _gauge(
            "muster_event_readers",
            "Open streams of live events.",
            {None: plane.hub.readers + plane.telemetry.stream.readers},
        ),
        _gauge("muster_waiting_claims", "Workers that wait for a job.", {None: plane.jobs.waiters}),
    ]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families([*own, *plane.metrics()]))
    of_nodes = node_metrics(nodes, plane.telemetry.metrics_nodes_max).encode()
    return Response(generate_latest(registry) + of_nodes, media_type="text/plain; version=0.0.4; charset=utf-8")


def _gauge(name: str, text: str, values: Mapping[tuple[str, str] | None, int]) -> Metric:
    samples = [Sample("", dict([label]) if label else {}, value) for label, value in values.items()]
    return Metric(name=name, help=text, kind="gauge", samples=samples)
