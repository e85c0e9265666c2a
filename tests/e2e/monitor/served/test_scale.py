"""A hundred nodes with eight workers each over the real API and hub: bursts, cuts and restarts lose nothing."""

import pytest
from playwright.async_api import Browser, Page, expect

from muster.domain.gpu import Gpu
from muster.domain.job import encode_result
from muster.domain.worker import Worker, WorkerStatus
from muster.ids import JobId, NodeId, worker_id
from muster.wire import Outcome, OutcomeKind
from tests.e2e.monitor.cable import Cable, cable_to
from tests.e2e.monitor.compared import are_equal
from tests.e2e.monitor.conftest import Watched
from tests.integration.api.conftest import Served
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

NODES = 100
WORKERS = 8
AWAY = r"ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY_RESPONSE"


async def beat(served: Served, number: int, seq: int, jobs: tuple[JobId, ...] = (), used: float = 12.0) -> None:
    """Say how a node with eight GPUs is; its first workers have these jobs."""
    node = NodeId(f"node-{number}")
    cards = tuple(
        Gpu(index=i, name="NVIDIA L4", memory_total_mb=23_034, memory_used_mb=2_048, utilization_percent=used)
        for i in range(WORKERS)
    )
    workers = tuple(
        Worker(
            worker_id=worker_id(node, i),
            index=i,
            status=WorkerStatus.BUSY if i < len(jobs) else WorkerStatus.IDLE,
            current_jobs=jobs[i : i + 1],
        )
        for i in range(WORKERS)
    )
    await served.plane.heartbeat(node, seq=seq, gpus=cards, workers=workers)


async def fill(served: Served) -> None:
    for number in range(NODES):
        await beat(served, number, seq=1)


async def run_jobs(served: Served, first: int, count: int) -> None:
    """Have them submitted, taken by the nodes in turn, and ended."""
    for number in range(first, first + count):
        await served.plane.submit(f"job-{number}")
    for at in range(first, first + count, WORKERS):
        node = f"node-{at // WORKERS % NODES}"
        await served.plane.open_session(f"{node}-session", node)
        claimed = (await served.plane.claim(f"{node}-session", node, want=WORKERS)).jobs
        ids = tuple(job.spec.job_id for job in claimed)
        await beat(served, at // WORKERS % NODES, seq=2 * at + 2, jobs=ids)
        done = tuple(
            Outcome(job_id=job_id, attempt=1, kind=OutcomeKind.COMPLETED, result=encode_result(None)) for job_id in ids
        )
        await served.plane.claim(f"{node}-session", node, want=0, done=done)
        await beat(served, at // WORKERS % NODES, seq=2 * at + 3)


async def test_f2_l2_a_burst_of_a_thousand_jobs_never_disconnects_and_leaves_the_page_as_the_server(
    page: Page, served: Served
) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    await fill(served)
    await expect(page.locator(".totals")).to_contain_text("of 800")
    await run_jobs(served, 0, 1000)
    await eventually(lambda: are_equal(page, served), 20)
    await expect(page.locator(".lane.finished .count")).to_have_text("1,000")
    assert [text for text in said if "disconnected" in text] == []


async def test_f2_s1_pages_sorting_and_filter_show_the_right_nodes_of_a_hundred(page: Page, served: Served) -> None:
    await fill(served)
    await beat(served, 88, seq=2, used=93.0)
    cards, drawn = page.locator(".card"), page.locator(".card:not([aria-busy])")
    await expect(cards).to_have_count(60)
    await page.get_by_label("Sort by").select_option("use")
    await expect(drawn.first).to_have_attribute("data-node", "node-88")
    await expect(cards).to_have_count(60)
    await page.get_by_role("button", name="Next").press("Enter")
    await expect(cards).to_have_count(40)
    await page.get_by_label("Filter nodes and jobs").fill("node-88")
    await expect(cards).to_have_count(1)
    await drawn.first.get_by_role("link", name="node-88").click()
    await expect(page.locator(".node-page")).to_contain_text("93 %")
    await page.get_by_label("Pages").get_by_role("link", name="Fleet").click()
    await page.get_by_label("Filter nodes and jobs").fill("")
    await expect(cards).to_have_count(40)
    await page.get_by_role("button", name="Table").click()
    await expect(page.locator("tbody tr")).to_have_count(NODES)
    await expect(page.locator("tbody tr").first).to_contain_text("95 %")


async def lose(cable: Cable, served: Served, how: str) -> None:
    if how == "silence":
        cable.swallow()
        return
    await cable.cut()
    if how == "restart":  # what it knew of its readers is forgotten
        await served.plane.hub.stop()
        await served.plane.hub.start()


@pytest.mark.parametrize("how", ["cut", "restart", "silence"])
async def test_f2_l3_after_a_cut_the_page_comes_back_by_itself_with_the_servers_state(
    browser: Browser, served: Served, how: str
) -> None:
    await fill(served)
    async with cable_to(served.url) as cable:
        context = await browser.new_context(viewport={"width": 1440, "height": 960})
        watched = Watched(await context.new_page())
        watched.expect_trouble(AWAY)
        page = watched.page
        if how == "silence":
            await page.clock.install()
        await page.goto(cable.url)
        if how == "silence":
            await page.clock.run_for(1000)
        await expect(page.locator(".connection")).to_have_text("live")
        await eventually(lambda: are_equal(page, served))

        await lose(cable, served, how)
        if how == "silence":
            async with page.expect_console_message(lambda message: "nothing heard for 20 s" in message.text):
                await page.clock.run_for(21_000)
        else:
            await expect(page.locator(".connection")).to_contain_text("server away since")
        await run_jobs(served, 0, 80)
        await served.client.delete("/api/v1/nodes/node-99")
        await cable.plug_in()
        if how == "silence":
            await page.clock.resume()
        await expect(page.locator(".connection")).to_have_text("live", timeout=15_000)
        await eventually(lambda: are_equal(page, served))
        await expect(page.locator(".totals")).to_contain_text("of 99")
        assert not watched.surprises
        await context.close()
