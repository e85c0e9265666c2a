"""`/metrics` as Prometheus reads it."""

import asyncio
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from muster.api.metrics import render
from muster.domain.gpu import Gpu
from muster.domain.job import JobStatus
from muster.domain.node import NodeFacts, Resources
from muster.errors import StoreUnavailable
from muster.ids import NodeId
from muster.metrics import FAMILIES, GPU_POWER, Metric, Sample
from muster.wire import Outcome, OutcomeKind
from tests.integration.api.conftest import Served
from tests.prometheus import promtool

Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(served: Served) -> tuple[str, Found]:
    async with served.client.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = await answer.text()
    families = text_string_to_metric_families(text)
    found = {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}
    assert len(found) == sum(not line.startswith("#") for line in text.splitlines()), "no series comes twice"
    return text, found


def value(found: Found, metric: str, /, **labels: str) -> float | None:
    return found.get((f"muster_{metric}", frozenset(labels.items())))


async def test_it_is_what_prometheus_takes_and_only_what_the_reference_lists(served: Served) -> None:
    await served.plane.heartbeat("n1", gpus=(Gpu(index=0, name='a "strange" \\ card', power_w=70.5),))
    await served.plane.submit()
    async with served.client.get("/nowhere"):
        pass
    text, _ = await scraped(served)
    text, found = await scraped(served)

    promtool("check", "metrics", text=text)
    kinds = dict(line.split(" ")[2:] for line in text.splitlines() if line.startswith("# TYPE"))
    assert kinds == {name: FAMILIES[name].kind for name in kinds}
    assert value(found, "gpu_info", node="n1", gpu="0", name='a "strange" \\ card') == 1
    assert value(found, "http_requests_total", method="GET", route="/metrics", status="200") == 1
    assert value(found, "http_requests_total", method="GET", route="_other", status="404") == 1


async def test_lesson_a_scrape_adds_nothing_but_that_it_was_made(served: Served) -> None:
    await served.plane.heartbeat("n1")
    await scraped(served)  # from here on there is a series for scrapes
    _, first = await scraped(served)
    _, second = await scraped(served)
    assert first.keys() == second.keys()
    counted = {name for (name, _), told in second.items() if FAMILIES.get(name) and FAMILIES[name].kind == "counter"}
    moved = {key for key in second if key[0] in counted and second[key] != first[key]}
    assert {(name, dict(labels).get("route")) for name, labels in moved} == {("muster_http_requests_total", "/metrics")}


async def test_nodes_and_gpus_are_in_base_units_and_what_is_unknown_is_left_out(served: Served) -> None:
    resources = Resources(memory_total_mb=1024, memory_used_mb=512, cpu_percent=25.0, disk_free_mb=10)
    cards = (
        Gpu(index=0, memory_total_mb=1024, memory_used_mb=256, utilization_percent=50.0, temperature_c=61.0),
        Gpu(index=1, out_of_service="it is too hot"),
    )
    await served.plane.heartbeat("n1", gpus=cards, resources=resources)
    served.plane.clock.advance(4.0)
    _, found = await scraped(served)

    assert value(found, "node_health", node="n1", health="healthy") == 1
    assert value(found, "node_last_heard_seconds", node="n1") == 4.0
    assert value(found, "node_memory_used_bytes", node="n1") == 512 * 2**20
    assert value(found, "node_cpu_ratio", node="n1") == 0.25
    assert value(found, "node_disk_bytes", node="n1") is None
    assert value(found, "gpu_utilization_ratio", node="n1", gpu="0") == 0.5
    assert value(found, "gpu_utilization_ratio", node="n1", gpu="1") is None
    assert value(found, "gpu_in_service", node="n1", gpu="1") == 0
    assert value(found, "workers", status="idle") == 1


async def test_jobs_are_counted_where_they_wait_and_by_how_their_attempts_ended(served: Served) -> None:
    plane = served.plane
    await plane.open_session()
    for number in range(3):
        await plane.submit(f"j{number}")
    await plane.submit("stuck", service_required="upscale")
    claimed = (await plane.claim(want=1)).jobs[0]
    outcome = Outcome(job_id=claimed.spec.job_id, attempt=1, kind=OutcomeKind.COMPLETED)
    await plane.claim(want=1, done=(outcome,))
    _, found = await scraped(served)

    assert value(found, "jobs", status="completed") == 1
    assert value(found, "queue_jobs", queue="simulation", state="waiting") == 1
    assert value(found, "queue_jobs", queue="simulation", state="running") == 1
    assert value(found, "queue_jobs", queue="upscale", state="unworkable") == 1
    assert value(found, "job_attempts_total", outcome="completed") == 1
    assert value(found, "jobs_submitted_total") == 4
    assert value(found, "job_wait_seconds_count", queue="simulation") == 2
    assert value(found, "job_run_seconds_count", queue="simulation") == 1
    assert value(found, "queue_oldest_seconds", queue="simulation") == 0


async def test_a_thousand_queues_are_a_hundred_and_the_others_together(served: Served) -> None:
    for number in range(130):
        await served.plane.submit(service_required=f"queue-{number}")
    _, found = await scraped(served)

    waiting = {dict(labels)["queue"]: n for (name, labels), n in found.items() if name == "muster_queue_jobs"}
    assert len(waiting) == 101
    assert value(found, "queue_jobs", queue="_other", state="waiting") == 30


async def test_while_the_store_is_away_everything_else_is_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> dict[JobStatus, int]:
        raise StoreUnavailable("gone")

    await served.plane.heartbeat("n1")
    monkeypatch.setattr(served.plane.jobs, "counts", away)
    _, found = await scraped(served)

    assert value(found, "store_up") == 0
    assert value(found, "nodes", health="healthy") == 1
    assert not any(name == "muster_jobs" for name, _ in found)


async def test_a_large_scrape_lets_others_have_their_turn() -> None:
    turns = 0

    async def neighbour() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def samples() -> Iterator[Sample]:
        for number in range(20_000):
            yield "", (f"n{number}", "0"), number

    beside = asyncio.create_task(neighbour())
    text = await render([Metric(GPU_POWER, samples())])
    beside.cancel()

    assert text.count(b"\n") == 20_002
    assert turns >= 20


async def test_names_of_nodes_are_told_whatever_they_are(served: Served) -> None:
    await served.plane.heartbeat("n1", facts=NodeFacts(node_id=NodeId("n1"), pool='"\n\\'))
    text, _ = await scraped(served)

    promtool("check", "metrics", text=text)
