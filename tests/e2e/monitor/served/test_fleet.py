"""The page against the real API and hub: the scripted server of the other tests could be wrong about either."""

from typing import Any

import pytest
from playwright.async_api import Page, expect

from muster.domain.command import CommandStatus
from muster.domain.event import Event
from muster.domain.gpu import Gpu
from muster.domain.job import JobStatus, Progress, Requirements, encode_result
from muster.domain.node import Phase
from muster.domain.process import ProcessFigures
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.errors import MusterError
from muster.ids import JobId, NodeId, SessionId, WorkerId
from muster.wire import (
    AgentEvents,
    CommandPoll,
    CommandReport,
    CommandReports,
    Outcome,
    OutcomeKind,
    ProgressReport,
    ProgressReports,
)
from tests.e2e.monitor.axe import violations
from tests.e2e.monitor.conftest import ARTIFACTS
from tests.e2e.monitor.test_live import card, lane
from tests.integration.api.conftest import Served
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_nodes_of_the_registry_are_shown_live(page: Page, served: Served) -> None:
    card_in_it = Gpu(index=0, name="NVIDIA L4", memory_total_mb=23_034, memory_used_mb=2_048, utilization_percent=12.0)
    busy = Worker(worker_id=WorkerId("n1-worker-0"), index=0, status=WorkerStatus.BUSY, current_jobs=(JobId("job-1"),))
    await served.plane.heartbeat("n1", gpus=(card_in_it,))
    await expect(card(page, "n1")).to_contain_text("2.0 / 22 GB")
    await expect(card(page, "n1")).to_contain_text("idle")
    await served.plane.heartbeat("n1", seq=2, gpus=(card_in_it,), workers=(busy,))
    await expect(card(page, "n1")).to_contain_text("busy")
    served.plane.clock.advance(45)
    served.plane.fleet.tick()
    await expect(card(page, "n1")).to_contain_text("stale")
    await served.client.delete("/api/v1/nodes/n1")
    await expect(page.locator(".card")).to_have_count(0)


async def test_a_job_of_the_queue_is_shown_from_submit_to_result(page: Page, served: Served) -> None:
    plane = served.plane
    job_id = await plane.submit("job-1", payload={"steps": 3}, requirements=Requirements(models=("flux-dev",)))
    await plane.open_session(models=("sdxl",))
    await page.locator(f'[data-job="{job_id}"]').click()
    drawer = page.get_by_role("dialog")
    await expect(drawer).to_contain_text("Why it waits")
    await expect(drawer).to_contain_text((await plane.jobs.explain(job_id)).summary)
    await expect(drawer).to_contain_text('"steps": 3')

    await plane.open_session("s2", "n2", models=("flux-dev",))
    await plane.claim("s2", "n2")
    await expect(lane(page, "running")).to_contain_text("n2-worker-0")
    report = ProgressReport(job_id=job_id, attempt=1, progress=Progress(fraction=0.4, message="step 2 of 5"))
    await plane.jobs.report_progress(ProgressReports(session_id=SessionId("s2"), reports=(report,)))
    await expect(lane(page, "running")).to_contain_text("step 2 of 5")
    await expect(lane(page, "running")).to_contain_text("40 %")

    done = Outcome(job_id=job_id, attempt=1, kind=OutcomeKind.COMPLETED, result=encode_result({"image": "fox.png"}))
    await plane.claim("s2", "n2", want=0, done=(done,))
    await expect(drawer).to_contain_text("fox.png")
    await drawer.get_by_role("button", name="Show").click()
    for fact in ("job submitted", "job claimed", "job completed"):
        await expect(drawer.locator(".timeline")).to_contain_text(fact)
    await expect(lane(page, "finished")).to_contain_text("job-1")


async def test_cancel_and_retry_reach_the_queue(page: Page, served: Served) -> None:
    job_id = await served.plane.submit("job-1")
    await page.locator(f'[data-job="{job_id}"]').click()
    drawer = page.get_by_role("dialog")
    await drawer.get_by_role("button", name="Cancel job").click()
    await drawer.get_by_role("button", name="Yes, cancel it").click()
    await expect(drawer.get_by_role("button", name="Retry job")).to_be_visible()
    assert await served.plane.status(job_id) is JobStatus.CANCELLED
    await drawer.get_by_role("button", name="Retry job").click()
    await expect(lane(page, "waiting")).to_contain_text("job-1")
    with pytest.raises(MusterError):
        await served.plane.jobs.retry(job_id)


async def test_after_more_changes_than_the_hub_tells_one_by_one_the_page_has_the_servers_state(
    page: Page, served: Served
) -> None:
    for number in range(120):
        await served.plane.submit(f"job-{number}", priority=number % 3)
    await expect(lane(page, "waiting").locator(".count")).to_have_text("120")
    first = [job.job_id for job in (await served.plane.jobs.page(JobStatus.UNWORKABLE, None, 25)).jobs]
    await expect(lane(page, "waiting").locator("code")).to_have_text(list(first))
    await expect(page.locator(".connection")).to_have_text("live")


async def test_of_a_large_fleet_only_what_is_on_the_screen_is_streamed_in_full(page: Page, served: Served) -> None:
    names = [f"n-{number}" for number in range(130)]
    for name in names:
        await served.plane.heartbeat(name, gpus=(Gpu(index=0, name="NVIDIA L4"),))
    in_full = "async () => (await import('/web/core/state.js')).state.nodes.size"
    await expect(page.locator(".pager")).to_contain_text("60 of 130")

    async def of_the_first_page() -> Any:
        return await page.evaluate(in_full) == 60

    await eventually(of_the_first_page)
    await expect(page.locator(".totals")).to_contain_text("130")
    await page.get_by_role("button", name="Next").click()
    await expect(card(page, "n-70")).to_contain_text("L4")
    await served.plane.heartbeat("n-70", seq=2, gpus=(Gpu(index=0, name="NVIDIA L4", utilization_percent=77.0),))
    await expect(card(page, "n-70")).to_contain_text("77 %")
    await page.get_by_label("Filter nodes and jobs").fill("n-12")
    await expect(page.locator(".card")).to_have_count(11)
    await expect(page.locator(".card[aria-busy]")).to_have_count(0)

    await page.get_by_label("Filter nodes and jobs").fill("")
    await page.get_by_role("button", name="Table").click()
    await expect(page.locator("tbody tr")).to_have_count(130)
    await page.get_by_label("Sort by").select_option("use")
    await expect(page.locator("tbody tr").first).to_contain_text("n-70")
    await served.client.delete("/api/v1/nodes/n-3")
    await expect(page.locator("tbody tr")).to_have_count(129)
    await expect(page.locator(".connection")).to_have_text("live")
    await page.screenshot(path=ARTIFACTS / "monitor-table.png")


async def test_a_node_has_a_page_of_its_own_where_it_is_asked_for_things(page: Page, served: Served) -> None:
    plane = served.plane
    llama = Service(name="llama", connector="llamacpp", status=ServiceStatus.RUNNING, managed=True)
    await plane.heartbeat("n1", services=(llama,))
    await page.get_by_role("link", name="n1", exact=True).click()
    node = page.locator('.node-page[data-node="n1"]')
    await expect(node).to_contain_text("healthy")
    await expect(node).to_contain_text("every 10 s")
    await expect(page.get_by_label("Pages").get_by_role("link", name="Fleet 1")).to_have_attribute(
        "aria-current", "page"
    )

    await node.get_by_role("button", name="Drain").click()
    await node.get_by_role("button", name="Leave it").click()
    assert plane.commands.newest() == []
    await node.get_by_role("button", name="Drain").click()
    await node.get_by_role("button", name="Drain it").click()
    await expect(node.locator(".rows")).to_contain_text("drain")
    (sent,) = plane.commands.newest()
    assert (sent.command, sent.node_id) == ("drain", "n1")
    done = CommandReport(command_id=sent.command_id, status=CommandStatus.DONE, result="draining")
    await plane.commands.report(CommandReports(node_id=NodeId("n1"), reports=(done,)))
    await expect(node.locator(".rows .badge")).to_have_text("done")

    await node.get_by_role("button", name="Restart").click()
    await node.get_by_role("button", name="Restart it").click()
    await expect(node.locator(".rows li").first).to_contain_text("restart service llama")
    await page.screenshot(path=ARTIFACTS / "monitor-node.png")
    await served.client.delete("/api/v1/nodes/n1")
    await expect(page.get_by_text("There is no node n1.")).to_be_visible()


async def test_a_node_shows_what_its_services_need_and_how_it_came_up(page: Page, served: Served) -> None:
    plane = served.plane
    llama = Service(name="llama", connector="llamacpp", status=ServiceStatus.RUNNING, managed=True, restarts=2)
    needs = ProcessFigures(
        name="llama", group="llama", pid=7, processes=3, cpu_percent=140.4, rss_mb=2048.0, uptime_s=3700
    )
    await plane.heartbeat("n1", services=(llama,), processes=(needs,), phase=Phase.STARTING)
    await tell(served, "machine_startup", phase="starting", boot_id="b1")
    await tell(served, "startup_step", step="start_services")
    await page.get_by_role("link", name="n1", exact=True).click()
    services = page.get_by_label("Services", exact=True).first
    for words in ("2 restarts", "CPU 140 %", "memory 2.0 GB", "3 processes", "up 1 h 01 m"):
        await expect(services).to_contain_text(words)
    start = page.get_by_role("region", name="Start")
    await expect(start).to_contain_text("is coming up")
    await expect(start.locator(".steps li")).to_contain_text("running")

    await tell(served, "step_failed", step="start_services", took_ms=1500, error="llama: no such model")
    await tell(served, "startup_complete", took_s=1.6, worker_count=1)
    needs = ProcessFigures(
        name="llama", group="llama", pid=7, processes=3, cpu_percent=7.0, rss_mb=2048.0, uptime_s=3710
    )
    plane.clock.advance(10)
    await plane.heartbeat("n1", seq=2, services=(llama,), processes=(needs,))
    await expect(start).to_contain_text("came up in 1 s with 1 worker")
    for words in ("start services", "failed", "llama: no such model"):
        await expect(start.locator(".steps li")).to_contain_text(words)
    await expect(services).to_contain_text("CPU 7 %")
    assert await violations(page) == []
    await page.screenshot(path=ARTIFACTS / "monitor-node-start.png", full_page=True)


async def test_a_command_without_an_answer_says_since_when_and_when_it_was_given_up(page: Page, served: Served) -> None:
    plane = served.plane
    await plane.heartbeat("n1")
    await page.get_by_role("link", name="n1", exact=True).click()
    await expect(page.get_by_text("None was sent to this node yet.")).to_be_visible()
    await served.client.post("/api/v1/command", json={"node_id": "n1", "command": "status", "timeout": 5})
    plane.clock.advance(1)
    await plane.heartbeat("n1", seq=2)
    row = page.locator(".rows li").first
    await expect(row).to_contain_text("the node has not fetched it yet. Given up at")
    await plane.commands.next_commands(CommandPoll(node_id=NodeId("n1"), boot_id="n1-boot"))
    await expect(row).to_contain_text("sent, and not acknowledged yet")
    (sent,) = plane.commands.newest()
    await plane.commands.report(
        CommandReports(
            node_id=NodeId("n1"),
            reports=(CommandReport(command_id=sent.command_id, status=CommandStatus.ACKED),),
        )
    )
    await expect(row).to_contain_text("the node has it, and has told no result yet")
    plane.clock.advance(6)
    await plane.commands.tick()
    await expect(row.locator(".badge")).to_have_text("expired")
    await expect(row).to_contain_text("Not answered: waited for")
    assert await violations(page) == []
    await page.screenshot(path=ARTIFACTS / "monitor-command-expired.png")


async def test_that_most_nodes_fell_silent_at_once_stands_on_every_page(page: Page, served: Served) -> None:
    plane = served.plane
    for number in range(5):
        await plane.heartbeat(f"n{number}")
    banner = page.get_by_role("alert").filter(has_text="may be cut off")
    await expect(page.locator(".card")).to_have_count(5)
    await expect(banner).to_have_count(0)
    plane.clock.advance(31)
    plane.fleet.tick()
    assert plane.fleet.book.suspects_itself
    for name in ("Queues", "Jobs"):
        await page.get_by_label("Pages").get_by_role("link", name=name).click()
        await expect(banner).to_be_visible()
    assert await violations(page) == []
    await page.screenshot(path=ARTIFACTS / "monitor-cut-off.png")
    for number in range(5):
        await plane.heartbeat(f"n{number}", seq=2)
    plane.fleet.tick()
    await expect(banner).to_have_count(0)


def needing(cpu_percent: float) -> ProcessFigures:
    return ProcessFigures(
        name="llama", group="llama", pid=7, processes=3, cpu_percent=cpu_percent, rss_mb=2048.0, uptime_s=3700
    )


async def tell(served: Served, kind: str, **data: Any) -> None:
    """Tell as an agent does."""
    event = Event(kind=kind, key="n1", at_ms=0, data=data)
    await served.plane.ingest.report_events(AgentEvents(node_id=NodeId("n1"), events=(event,)))
    await served.plane.recorder.flush()
