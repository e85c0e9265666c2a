"""The page against the real API and hub: the scripted server of the other tests could be wrong about either."""

from typing import Any

import pytest
from playwright.async_api import Page, expect

from muster.domain.command import CommandStatus
from muster.domain.gpu import Gpu
from muster.domain.job import JobStatus, Progress, Requirements, encode_result
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.errors import MusterError
from muster.ids import JobId, NodeId, SessionId, WorkerId
from muster.wire import CommandReport, CommandReports, Outcome, OutcomeKind, ProgressReport, ProgressReports
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
