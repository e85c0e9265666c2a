"""What the server says is on the page, and stays so with each event."""

import re

import pytest
from playwright.async_api import Locator, Page, expect

from muster.domain.job import JobStatus
from tests.e2e.monitor.fleets import MINUTE, SECOND, gpu, job, machine, progress, service, unread_gpu, worker
from tests.monitor_server import MonitorServer, now_ms

pytestmark = pytest.mark.asyncio(loop_scope="session")


def card(page: Page, node: str) -> Locator:
    return page.locator(f'.card[data-node="{node}"]')


def lane(page: Page, name: str) -> Locator:
    return page.locator(f".lane.{name}")


async def open_live(page: Page, server: MonitorServer) -> None:
    await page.goto(server.url)
    await expect(page.locator(".connection")).to_have_text("live")


async def test_both_addresses_serve_the_page(page: Page, server: MonitorServer) -> None:
    for path in ("/", "/_/ui"):
        await page.goto(server.url + path)
        await expect(page.locator(".connection")).to_have_text("live")
        await expect(page.get_by_text("No node has registered yet.")).to_be_visible()


async def test_a_node_is_shown_in_the_words_of_the_server(page: Page, server: MonitorServer) -> None:
    server.put_machine(
        machine(
            "gpu-1",
            health_status="degraded",
            reason="the disk is nearly full",
            draining=True,
            late=True,
            pool="images",
            link="amqp",
            last_seen=now_ms() - 5 * MINUTE,
            gpus=[gpu(0, "NVIDIA GeForce RTX 4090", 24_576, 0.5, 97, 62)],
            service_details=[
                service("comfy", "comfyui", ["flux-dev", "sdxl"], slots=4, slots_busy=3),
                service("ollama", "ollama", ["a"], on_disk=["b"]),
                service("llama", "llamacpp", status="failed", error="port 8080 is taken", restarts=2),
            ],
        ),
        [worker("gpu-1", 0, "busy", ["job-a"]), worker("gpu-1", 1, "error")],
    )
    server.put_job(job("job-a", JobStatus.IN_PROGRESS, service_required="upscale", progress=progress(0.4)))
    await open_live(page, server)
    node = card(page, "gpu-1")
    for words in ["degraded", "ready", "the disk is nearly full", "draining", "late", "pool images", "amqp"]:
        await expect(node).to_contain_text(words)
    await expect(node.locator(".seen")).to_have_text(re.compile(r"seen 5 m \d\d s ago"))
    assert await node.locator(".seen time").get_attribute("title")
    for words in ["23 %", "41 / 128 GB", "RTX 4090", "97 %", "12 / 24 GB", "62 °C"]:
        await expect(node.locator(".figures")).to_contain_text(words)
    services = node.get_by_role("list", name="Services")
    for words in ["3 of 4 slots busy", "flux-dev, sdxl", "a (loaded), b", "failed", "port 8080 is taken", "2 restarts"]:
        await expect(services).to_contain_text(words)
    workers = node.get_by_role("list", name="Workers")
    for words in ["busy", "worker-0", "upscale", "40 %", "error"]:
        await expect(workers).to_contain_text(words)


async def test_an_unknown_figure_is_said_to_be_unknown_and_never_zero(page: Page, server: MonitorServer) -> None:
    nothing = dict.fromkeys(("memory_total_mb", "memory_used_mb", "cpu_percent", "disk_total_mb", "disk_free_mb"))
    server.put_machine(machine("dark", gpus=[unread_gpu(0)], resources=nothing, last_seen=None), [])
    await open_live(page, server)
    figures = card(page, "dark").locator(".figures")
    await expect(figures.get_by_text("unknown")).to_have_count(4)
    await expect(figures.get_by_role("meter")).to_have_count(0)
    assert "0 %" not in await figures.inner_text()
    await expect(card(page, "dark").locator(".seen")).to_have_text("seen never")


async def test_nodes_come_change_and_go_without_a_reload(page: Page, server: MonitorServer) -> None:
    await open_live(page, server)
    server.put_machine(machine("n-10", status="starting", health_status="registering"), [])
    server.put_machine(machine("n-9"), [worker("n-9", 0)])
    await expect(page.locator(".card h3")).to_have_text(["n-9", "n-10"])
    await expect(card(page, "n-10")).to_contain_text("starting")
    await expect(card(page, "n-9").get_by_role("list", name="Workers")).to_contain_text("idle")

    server.put_machine(machine("n-10", status="error", phase="error", health_status="unhealthy"), [])
    server.put_machine(machine("n-9"), [worker("n-9", 0, "busy", ["job-1"])])
    await expect(card(page, "n-10")).to_contain_text("error")
    await expect(card(page, "n-10")).to_contain_text("unhealthy")
    await expect(card(page, "n-9").get_by_role("list", name="Workers")).to_contain_text("busy")
    await expect(page.locator(".totals")).to_contain_text("1 of 2")

    server.remove_machine("n-10")
    await expect(page.locator(".card h3")).to_have_text(["n-9"])


async def test_a_job_walks_through_the_lanes(page: Page, server: MonitorServer) -> None:
    await open_live(page, server)
    server.put_job(job("job-1"))
    await expect(lane(page, "waiting")).to_contain_text("job-1")
    server.put_job(job("job-1", JobStatus.ASSIGNED, worker_id="n-worker-0"))
    await expect(lane(page, "running")).to_contain_text("n-worker-0")
    await expect(lane(page, "waiting")).not_to_contain_text("job-1")
    server.put_progress("job-1", 0.25, "step 5 of 20")
    await expect(lane(page, "running")).to_contain_text("step 5 of 20")
    await expect(lane(page, "running").get_by_role("progressbar")).to_have_attribute("aria-valuenow", "25")
    server.put_job(job("job-1", JobStatus.COMPLETED))
    await expect(lane(page, "finished")).to_contain_text("job-1")
    await expect(lane(page, "finished").locator(".count")).to_have_text("1")
    await expect(lane(page, "running").locator(".count")).to_have_text("0")


async def test_progress_that_comes_after_the_end_does_not_bring_a_job_back(page: Page, server: MonitorServer) -> None:
    await open_live(page, server)
    server.put_job(job("job-1", JobStatus.IN_PROGRESS))
    server.put_job(job("job-1", JobStatus.FAILED, error={"code": "boom", "message": "it broke"}))
    server.tell({"type": "job_progress", "job_id": "job-1", "progress": progress(0.9)})
    server.put_job(job("job-2"))
    await expect(lane(page, "waiting")).to_contain_text("job-2")
    await expect(lane(page, "failed")).to_contain_text("boom it broke")
    await expect(lane(page, "running")).to_contain_text("Nothing runs.")


async def test_waiting_jobs_stand_in_the_order_of_the_queue(page: Page, server: MonitorServer) -> None:
    now = now_ms()
    await open_live(page, server)
    server.put_job(job("late", created_at=now))
    server.put_job(job("early", created_at=now - 9 * SECOND))
    server.put_job(job("urgent", priority=90, created_at=now))
    server.put_job(job("step-2", created_at=now, workflow_priority=60, priority=1))
    server.put_job(job("again", created_at=now - 20 * SECOND, next_attempt_at=now + 60 * SECOND))
    server.put_job(job("nobody", JobStatus.UNWORKABLE, priority=95))
    await expect(lane(page, "waiting").locator("code")).to_have_text(
        ["nobody", "urgent", "step-2", "again", "early", "late"]
    )
    await expect(lane(page, "waiting")).to_contain_text("no node can run this")
    await expect(lane(page, "waiting")).to_contain_text("tries again in")


async def test_the_same_event_twice_changes_nothing(page: Page, server: MonitorServer) -> None:
    await open_live(page, server)
    for _ in range(2):
        server.put_job(job("job-1", JobStatus.COMPLETED))
        server.put_machine(machine("n-1"), [worker("n-1", 0)])
    server.put_job(job("job-2"))
    await expect(lane(page, "waiting")).to_contain_text("job-2")
    await expect(lane(page, "finished").locator("li")).to_have_count(1)
    await expect(lane(page, "finished").locator(".count")).to_have_text("1")
    await expect(page.locator(".card")).to_have_count(1)
    await expect(page.locator(".workers li")).to_have_count(1)


async def test_totals_and_the_gateway_follow_the_statistics(page: Page, server: MonitorServer) -> None:
    await open_live(page, server)
    server.gateway = {"in_flight": 3, "requests_total": 1204, "errors_total": 1}
    server.put_stats()
    await expect(page.locator(".totals")).to_contain_text("gateway in flight")
    await expect(page.locator(".totals")).to_contain_text("1,204 requests, 1 error")


async def test_a_word_of_a_newer_server_is_shown_as_it_is(page: Page, server: MonitorServer) -> None:
    server.put_machine(machine("n-1", health_status="hibernating"), [worker("n-1", 0, "dreaming")])
    await open_live(page, server)
    server.tell({"type": "moon_phase", "phase": "full"})
    server.put_job(job("job-1"))
    await expect(lane(page, "waiting")).to_contain_text("job-1")
    await expect(card(page, "n-1")).to_contain_text("hibernating")
    await expect(card(page, "n-1")).to_contain_text("dreaming")
