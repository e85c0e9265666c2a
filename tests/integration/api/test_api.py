import asyncio
import json
from typing import Any

import aiohttp
import pytest

from muster.domain.gpu import Gpu, GpuOwner
from muster.domain.job import JobStatus
from muster.domain.model import Model
from muster.domain.node import NodeFacts
from muster.domain.process import ProcessFigures
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.ids import NodeId
from muster.webhooks.wanted import new_delivery
from muster.wire import ClaimRequest, encode
from tests.integration.api.conftest import Served, serving
from tests.waiting import eventually


async def get(served: Served, path: str, status: int = 200, **options: Any) -> Any:
    async with served.client.get(path, **options) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def post(served: Served, path: str, body: Any = None, status: int = 200, **options: Any) -> Any:
    async with served.client.post(path, json=body, **options) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json() if answer.content_length else None


# --- basics -----------------------------------------------------------------------------------------------------------


async def test_health_is_two_letters_or_json(served: Served) -> None:
    async with served.client.get("/health") as answer:
        assert (answer.status, (await answer.text()).strip()) == (200, "ok")
    assert (await get(served, "/health", headers={"Accept": "application/json"}))["status"] == "ok"


async def test_version_names_the_program(served: Served) -> None:
    assert (await get(served, "/version"))["name"] == "muster"


async def test_metrics_are_prometheus_text(served: Served) -> None:
    await served.plane.heartbeat("n1")
    await served.plane.submit("nobody-can-run-it", service_required="comfyui")
    await served.plane.store.webhooks.plan(
        [new_delivery("hook-1", "job_failed", "a", "1-0", occurred_at_ms=1, now_ms=1)]
    )
    async with served.client.get("/metrics") as answer:
        text = await answer.text()
    assert 'muster_nodes{health="healthy"} 1' in text
    assert "# TYPE muster_jobs gauge" in text
    assert 'muster_jobs{status="unworkable"} 1' in text
    assert "muster_webhook_deliveries_waiting 1" in text
    assert "muster_batches_open 0" in text


async def test_the_description_lists_what_there_is(served: Served) -> None:
    paths = (await get(served, "/openapi.json"))["paths"]
    assert {"/api/jobs", "/api/v1/nodes", "/api/monitor/state"} <= paths.keys()
    async with served.client.get("/docs") as answer:
        assert "/api/jobs" in await answer.text()


async def test_the_root_is_the_monitor_for_people_and_ollama_for_programs(served: Served) -> None:
    async with served.client.get("/", headers={"Accept": "text/html"}) as answer:
        assert answer.content_type == "text/html"
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    async with served.client.get("/") as answer:
        assert await answer.text() == "Ollama is running"
    async with served.client.get("/_/ui") as answer:
        assert answer.content_type == "text/html"


@pytest.mark.parametrize("path", ["/", "/health", "/version", "/metrics", "/api/v1/nodes"])
async def test_head_is_get_without_its_body(served: Served, path: str) -> None:
    async with served.client.head(path) as head, served.client.get(path) as full:
        assert (head.status, await head.read()) == (200, b"")
        assert head.content_type == full.content_type
        assert int(head.headers["Content-Length"]) > 0
    async with served.client.head(path) as again:  # the connection is still in step
        assert again.status == 200


async def test_a_stream_has_no_head(served: Served) -> None:
    async with served.client.head("/api/events/stream") as head:
        assert head.status == 405


async def test_every_answer_carries_a_correlation_id_and_keeps_the_callers(served: Served) -> None:
    async with served.client.get("/health") as answer:
        assert answer.headers["X-Correlation-Id"].startswith("req-")
    async with served.client.get("/nowhere", headers={"X-Correlation-Id": "mine-1"}) as answer:
        assert answer.headers["X-Correlation-Id"] == "mine-1"
    async with served.client.get("/health", headers={"X-Correlation-Id": "bad id"}) as answer:
        assert answer.headers["X-Correlation-Id"].startswith("req-")


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b"{}", 400, "service_required"),
        (b'{"type":"a","job_type":"b"}', 400, "service_required"),
        (b'{"type":"a","id":"1","job_id":"2"}', 400, "job_id"),
        (b'{"type":"a","priority":"high"}', 400, "priority"),
        (b'{"type":"a","priority":101}', 400, "priority"),
        (b'{"type":"a","prioritty":1}', 400, "prioritty"),
        (b'{"type":"a","requirements":{"hardware":{"vram":1}}}', 400, "requirements.hardware.vram"),
        (b'{"type":"a","requirements":{"models":{"a":1}}}', 400, "requirements.models"),
        (b'{"type":"a","requirements":{"negative_requirements":["a"]}}', 400, "requirements.negative_requirements"),
        (
            b'{"type":"a","requirements":{"hardware":{"gpu_memory_gb":"lots"}}}',
            400,
            "requirements.hardware.gpu_memory_gb",
        ),
        (b'{"type":"a","payload":"' + b"x" * 5_000 + b'"}', 413, "payload"),
        (b'{"type":"a","payload":"' + b"x" * 20_000 + b'"}', 413, "body"),
        (b'{"type":"a b"}', 400, "service_required"),
        (b'{"type":"a","timeout_s":1e999}', 400, None),
        (b'{"type":"\xff"}', 400, None),
    ],
)
async def test_bad_jobs_are_refused_by_field_and_not_stored(
    served: Served, body: bytes, status: int, field: str | None
) -> None:
    headers = {"Content-Type": "application/json"}
    async with served.client.post("/api/jobs", data=body, headers=headers) as answer:
        said = await answer.json()
        assert answer.status == status, said
    assert said.get("field") == field
    assert said["code"]
    assert said["message"]
    assert said["retriable"] is False
    assert "Traceback" not in str(said)
    assert (await served.plane.jobs.counts())[JobStatus.PENDING] == 0


@pytest.mark.parametrize(
    "path",
    ["/api/v1/nodes/none", "/api/jobs/job-none", "/api/jobs/job-none/explain", "/api/jobs/job-none/progress", "/no"],
)
async def test_what_is_not_there_is_404(served: Served, path: str) -> None:
    assert "not_found" in (await get(served, path, 404))["code"]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "status=lost", "cursor=nonsense", "limit=501"])
async def test_bad_queries_are_400(served: Served, query: str) -> None:
    assert (await get(served, f"/api/jobs?{query}", 400))["message"]


async def test_the_wrong_method_is_405(served: Served) -> None:
    async with served.client.delete("/api/jobs") as answer:
        said = await answer.json()
        assert (answer.status, said["code"]) == (405, "method_not_allowed")
        assert said["message"] == "/api/jobs takes GET, OPTIONS, POST, not DELETE"
        assert set(answer.headers["Allow"].split(", ")) == {"GET", "OPTIONS", "POST"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is not valid JSON: it is empty"),
        (b'{"type": "a"', "the body is not valid JSON: it ends in the middle"),
        (b'{"type": "a",}', "the body is not valid JSON: trailing comma in object (byte 13)"),
        (b'{"type":"a","payload":"' + b"x" * 5_000 + b'"}', "setting job_payload_bytes_max"),
        (b'{"type":"a","payload":"' + b"x" * 20_000 + b'"}', "setting request_bytes_max"),
    ],
    ids=["empty", "cut", "odd", "payload", "large"],
)
async def test_what_is_wrong_with_a_body_is_told_in_words_that_help(served: Served, body: bytes, words: str) -> None:
    headers = {"Content-Type": "application/json"}
    async with served.client.post("/api/jobs", data=body, headers=headers) as answer:
        assert words in (await answer.json())["message"]


async def test_a_fault_of_ours_shows_no_traceback(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(served.plane.jobs, "counts", broken)
    said = await get(served, "/api/v1/stats", 500)
    assert said["code"] == "internal_error"
    assert "secret" not in str(said)


# --- jobs -------------------------------------------------------------------------------------------------------------


async def test_a_job_is_submitted_shown_listed_cancelled_and_retried(served: Served) -> None:
    job = {"job_type": "simulation", "payload": {"steps": 2}, "priority": 7, "id": "mine"}
    answer = await post(served, "/api/jobs", job, 201)
    assert (answer["success"], answer["job_id"], answer["created"]) == (True, "mine", True)
    again = await post(served, "/api/jobs", job, 200)
    assert again["created"] is False
    shown = (await get(served, "/api/jobs/mine"))["job"]
    assert (shown["payload"], shown["priority"], shown["status"]) == ({"steps": 2}, 7, "unworkable")
    listed = await get(served, "/api/jobs?status=unworkable")
    assert [job["job_id"] for job in listed["jobs"]] == ["mine"]
    assert "payload" not in listed["jobs"][0]
    assert "no worker has been seen" in (await get(served, "/api/jobs/mine/explain"))["explanation"]["summary"]
    assert (await post(served, "/api/jobs/mine/cancel"))["job"]["status"] == "cancelled"
    assert (await post(served, "/api/jobs/mine/cancel", status=409))["code"] == "invalid_transition"
    assert (await post(served, "/api/jobs/mine/retry"))["job"]["status"] in {"pending", "unworkable"}


async def test_pages_of_jobs_follow_each_other(served: Served) -> None:
    for number in range(5):
        await post(served, "/api/jobs", {"type": "simulation", "id": f"job-{number}"}, 201)
    found, cursor = [], ""
    while True:
        page = await get(served, f"/api/jobs?limit=2{cursor and '&cursor=' + cursor}")
        found += [job["job_id"] for job in page["jobs"]]
        if page["next_cursor"] is None:
            break
        cursor = page["next_cursor"]
    assert sorted(found) == [f"job-{number}" for number in range(5)]
    assert page["total"] == 5


async def test_a_jobs_stream_ends_with_its_one_end(served: Served) -> None:
    await served.plane.open_session()
    await post(served, "/api/jobs", {"type": "simulation", "id": "mine"}, 201)
    async with served.client.get("/api/jobs/mine/progress") as stream:
        assert stream.content_type == "text/event-stream"
        await eventually(lambda: served.plane.hub.readers == 1)
        await served.plane.jobs.cancel((await served.plane.jobs.page(JobStatus.PENDING, None, 1)).jobs[0].job_id)
        text = (await stream.read()).decode()
    states = [json.loads(line[6:])["job"]["status"] for line in text.splitlines() if line.startswith("data: ")]
    assert states == ["pending", "cancelled"]


# --- fleet ------------------------------------------------------------------------------------------------------------


async def test_an_empty_fleet_is_an_empty_list(served: Served) -> None:
    assert await get(served, "/api/v1/nodes") == []
    fleet = await get(served, "/api/v1/fleet")
    assert fleet["nodes"] == []
    assert fleet["summary"] == {
        "total_nodes": 0,
        "healthy_nodes": 0,
        "unhealthy_nodes": 0,
        "gpu_nodes": 0,
        "total_gpus": 0,
    }


async def test_nodes_are_filtered_and_paged(served: Served) -> None:
    for number in range(5):
        facts = NodeFacts(
            node_id=NodeId(f"n{number}"), node_type="gpu-worker" if number % 2 else "cpu-worker", pool="p"
        )
        await served.plane.heartbeat(f"n{number}", facts=facts)
    assert [node["id"] for node in await get(served, "/api/v1/nodes?type=gpu-worker")] == ["n1", "n3"]
    assert await get(served, "/api/v1/nodes?type=lighthouse") == []
    assert await get(served, "/api/v1/nodes?health=dead") == []
    async with served.client.get("/api/v1/nodes?limit=2&page=3&pool=p") as answer:
        assert answer.headers["X-Total-Count"] == "5"
        assert [node["node_id"] for node in await answer.json()] == ["n4"]
    assert len(await get(served, "/api/v1/workers?limit=3")) == 3
    stats = await get(served, "/api/v1/stats")
    assert (stats["total_nodes"], stats["connected"]) == (5, 5)


async def test_a_gpu_shows_who_uses_it_and_why_it_is_out_of_service(served: Served) -> None:
    llama = GpuOwner(name="llama", memory_mb=5_000, utilization_percent=40.0, service=True)
    blender = GpuOwner(name="blender", pids=(77,), memory_mb=4_200)
    why = "it fell off the bus"
    gpus = (Gpu(index=0, memory_total_mb=24_564, owners=(llama, blender)), Gpu(index=1, out_of_service=why))
    await served.plane.heartbeat("n", gpus=gpus)
    used, lost = (await get(served, "/api/v1/nodes/n"))["gpus"]
    assert used["owners"] == [
        {"name": "llama", "service": True, "pids": [], "memory_mb": 5_000, "utilization_percent": 40.0},
        {"name": "blender", "service": False, "pids": [77], "memory_mb": 4_200, "utilization_percent": None},
    ]
    assert (used["out_of_service"], lost["out_of_service"], lost["owners"]) == (None, why, None)
    assert {lost[name] for name in ("memory_used_mb", "ecc_uncorrected", "xid", "throttled", "clock_mhz")} == {None}


async def test_a_node_shows_who_and_how_it_is_and_can_be_forgotten(served: Served) -> None:
    await served.plane.heartbeat("n1")
    served.plane.clock.advance(5)
    node = await get(served, "/api/v1/nodes/n1")
    assert (node["health_status"], node["connected"], node["phase"]) == ("healthy", True, "ready")
    assert node["uptime_seconds"] == 5
    assert node["last_seen"].endswith("Z")
    async with served.client.delete("/api/v1/nodes/n1") as answer:
        assert answer.status == 204
    async with served.client.delete("/api/v1/nodes/n1") as answer:
        assert answer.status == 404


async def test_models_say_where_they_are_and_why_they_take_no_work(served: Served) -> None:
    service = Service(
        name="llama",
        connector="llamacpp",
        status=ServiceStatus.RUNNING,
        url="http://127.0.0.1:1",
        dialects=(Dialect.OPENAI,),
        models=(Model(name="m", resident=True),),
    )
    await served.plane.heartbeat("n1", services=(service,))
    served.plane.clock.advance(35)
    served.plane.fleet.tick()
    (model,) = await get(served, "/api/v1/models")
    (holder,) = model["nodes"]
    assert (model["name"], holder["node_id"], holder["accepts_work"]) == ("m", "n1", False)
    assert holder["reasons"]


async def test_a_node_tells_how_its_services_are_doing(served: Served) -> None:
    services = [
        Service(name=name, connector="llamacpp", status=ServiceStatus.RUNNING) for name in ("llama", "attached")
    ]
    figures = ProcessFigures(name="llama", group="llama", pid=41, processes=2, cpu_percent=12.5, rss_mb=300.1)
    await served.plane.heartbeat("n1", services=tuple(services), processes=(figures,))
    llama, attached = (await get(served, "/api/v1/nodes/n1"))["services"]
    assert llama["figures"] == {
        "processes": 2,
        "cpu_percent": 12.5,
        "rss_mb": 300.1,
        "read_bytes_s": None,
        "write_bytes_s": None,
        "uptime_s": None,
        "model": None,
    }
    assert attached["figures"] is None


# --- events and monitor -----------------------------------------------------------------------------------------------


async def test_facts_can_be_paged(served: Served) -> None:
    for number in range(3):
        await post(served, "/api/jobs", {"type": "simulation", "id": f"job-{number}"}, 201)
    first = await get(served, "/api/events?limit=2")
    rest = await get(served, f"/api/events?after={first['events'][-1]['id']}")
    assert [event["kind"] for event in first["events"] + rest["events"]] == ["job_submitted"] * 3
    assert (await get(served, "/api/events?after=nonsense", 400))["field"] == "after"
    assert (await get(served, "/api/events/stream?after=nonsense", 400))["field"] == "after"


async def test_the_monitors_state_is_paged_and_filtered(served: Served) -> None:
    for number in range(3):
        await served.plane.heartbeat(f"n{number}")
    state = await get(served, "/api/monitor/state?limit=2")
    assert state["success"] is True
    assert [machine["machine_id"] for machine in state["data"]["machines"]] == ["n0", "n1"]
    assert state["pagination"] == {"page": 1, "limit": 2, "total": 3}
    one = await get(served, "/api/monitor/state?machines=n2")
    assert [worker["machine_id"] for worker in one["data"]["workers"]] == ["n2"]
    assert (await get(served, "/api/monitor/state?pool=other"))["data"]["machines"] == []


async def test_lesson_the_live_stream_begins_with_connected_and_a_snapshot(served: Served) -> None:
    async with served.client.get("/api/events/monitor") as stream:
        assert stream.content_type == "text/event-stream"
        kinds = []
        async for line in stream.content:
            if line.startswith(b"data: "):
                kinds.append(json.loads(line[6:])["type"])
            if len(kinds) == 2:
                break
    assert kinds == ["connected", "full_state_snapshot"]
    await eventually(lambda: served.plane.hub.readers == 0)


# --- agents and access ------------------------------------------------------------------------------------------------


async def test_an_agent_that_hangs_up_while_it_waits_gets_no_job(served: Served) -> None:
    await served.plane.open_session()
    ask = ClaimRequest(session_id="s1", worker_id="n1-worker-0", want=1, wait_s=20)  # type: ignore[arg-type]  # plain names do
    async with aiohttp.ClientSession(served.url) as other:
        waiting = asyncio.ensure_future(other.post("/api/agent/claim", data=encode(ask)))
        await eventually(lambda: served.plane.jobs.waiters == 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await eventually(lambda: served.plane.jobs.waiters == 0)
    job_id = await served.plane.submit()
    assert await served.plane.status(job_id) is JobStatus.PENDING


async def test_an_unknown_call_of_an_agent_is_404_and_a_bad_one_names_the_field(served: Served) -> None:
    assert (await post(served, "/api/agent/dance", {}, 404))["code"] == "not_found"
    said = await post(served, "/api/agent/heartbeat", {"boot_id": "b", "seq": "x"}, 400)
    assert said["code"] == "invalid_input"
    assert served.plane.fleet.nodes() == []


async def test_with_a_token_set_callers_must_show_it() -> None:
    async with serving(token="right") as served:
        for path in ("/health", "/version", "/metrics", "/_/ui"):
            async with served.client.get(path) as answer:
                assert answer.status == 200, path
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "right"}):
            assert (await get(served, "/api/v1/nodes", 401, headers=headers))["code"] == "unauthorized"
            async with served.client.get("/v1/models", headers=headers) as answer:
                assert answer.status == 401
        assert await get(served, "/api/v1/nodes", headers={"Authorization": "Bearer right"}) == []
        async with served.client.get("/api/events/monitor?token=right") as stream:
            assert stream.status == 200
        assert (await get(served, "/api/v1/nodes?token=right", 401))["code"] == "unauthorized"
