"""Health, version, metrics, the API's own description."""

from typing import Any

from litestar import MediaType, Request, Response, get
from litestar.datastructures import State
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from muster import __version__
from muster.api.plane import Plane
from muster.domain.node import Health


@get("/health", tags=["basics"], summary="Is the control plane up?")
async def health(request: Request[Any, Any, State]) -> Response[Any]:
    if "application/json" in request.headers.get("accept", ""):
        return Response({"status": "ok", "version": __version__})
    return Response("ok", media_type=MediaType.TEXT)


@get("/version", tags=["basics"], summary="Which version runs")
async def version() -> dict[str, str]:
    return {"version": __version__, "name": "muster"}


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


@get("/metrics", tags=["basics"], summary="Prometheus metrics", media_type=MediaType.TEXT)
async def metrics(plane: Plane) -> Response[bytes]:
    nodes = GaugeMetricFamily("muster_nodes", "Nodes by health", labels=["health"])
    by_health = dict.fromkeys(Health, 0)
    for node in plane.fleet.nodes():
        by_health[node.health] += 1
    for status, count in by_health.items():
        nodes.add_metric([status.value], count)
    jobs = GaugeMetricFamily("muster_jobs", "Jobs by status", labels=["status"])
    for job_status, count in (await plane.jobs.counts()).items():
        jobs.add_metric([job_status.value], count)
    readers = GaugeMetricFamily("muster_event_readers", "Open streams of live events", value=plane.hub.readers)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families([nodes, jobs, readers, *plane.metrics()]))
    return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")
