"""A hundred machines and a burst of jobs: nothing is lost, nothing grows without bound, the page stays usable."""

from typing import Any

import pytest
from playwright.async_api import Page, expect

from muster.domain.job import JobStatus
from tests.e2e.monitor.fleets import fill_with_many, job, machine, worker
from tests.e2e.monitor.test_live import card, lane, open_live
from tests.monitor_server import MonitorServer
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Every state the page ever draws of these figures would be a mutation; a burst must be drawn in few.
COUNT_DRAWINGS = """() => {
  window.drawings = 0;
  const count = new MutationObserver(() => { window.drawings += 1; });
  const finished = document.querySelector(".lane.finished .count");
  count.observe(finished, { characterData: true, childList: true, subtree: true });
}"""
SIZES = """async () => {
  const { state } = await import("/web/core/state.js");
  const lanes = state.lanes.peek();
  const lengths = Object.entries(lanes).map(([lane, jobs]) => [lane, jobs.length]);
  return { jobs: state.jobs.size, ...Object.fromEntries(lengths) };
}"""


async def sizes(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = await page.evaluate(SIZES)
    return found


async def test_a_hundred_machines_come_in_pages(page: Page, server: MonitorServer) -> None:
    fill_with_many(server, machines=100, workers=8)
    await open_live(page, server)
    cards = page.locator(".card")
    await expect(cards).to_have_count(60)
    await expect(page.locator(".totals")).to_contain_text("0 of 800")
    await page.get_by_role("button", name="Next").click()
    await expect(cards).to_have_count(40)
    await expect(page.locator(".pager")).to_contain_text("100 of 100")
    await page.get_by_label("Filter nodes and jobs").fill("node-7")
    await expect(cards).to_have_count(11)


async def test_only_what_is_near_the_screen_is_drawn_in_full(page: Page, server: MonitorServer) -> None:
    fill_with_many(server, machines=60, workers=8)
    await open_live(page, server)
    drawn = page.locator(".card:not([aria-busy])")
    await expect(card(page, "node-0").get_by_role("list", name="Workers")).to_be_visible()
    await expect(card(page, "node-59")).to_have_attribute("aria-busy", "true")
    assert await drawn.count() < 40
    await card(page, "node-59").scroll_into_view_if_needed()
    await expect(card(page, "node-59").get_by_role("list", name="Workers")).to_be_visible()
    await expect(card(page, "node-0")).to_have_attribute("aria-busy", "true")
    await page.get_by_role("button", name="Table").click()
    rows = page.locator("tr[data-node]")
    await expect(rows).to_have_count(60)
    await expect(page.locator('tr[data-node="node-0"]')).to_contain_text("healthy")


async def test_a_burst_of_a_thousand_jobs_on_a_hundred_machines(page: Page, server: MonitorServer) -> None:
    fill_with_many(server, machines=100, workers=8)
    await open_live(page, server)
    await expect(page.locator(".card")).to_have_count(60)
    await page.evaluate(COUNT_DRAWINGS)
    for number in range(1000):
        name = f"node-{number % 100}"
        where = f"{name}-worker-{number % 8}"
        server.put_job(job(f"job-{number}"))
        server.put_job(job(f"job-{number}", JobStatus.IN_PROGRESS, worker_id=where))
        workers = [worker(name, i, "busy" if i == number % 8 else "idle") for i in range(8)]
        server.put_machine(server.machines[name], workers)
        ended = JobStatus.FAILED if number % 10 == 0 else JobStatus.COMPLETED
        server.put_job(job(f"job-{number}", ended, worker_id=where, error={"code": "boom", "message": "no"}))
    server.put_machine(machine("node-0", health_status="degraded"), [])
    await expect(card(page, "node-0")).to_contain_text("degraded", timeout=30_000)
    await expect(lane(page, "finished").locator(".count")).to_have_text("900")
    await expect(lane(page, "failed").locator(".count")).to_have_text("100")
    await expect(page.locator(".connection")).to_have_text("live")
    assert await page.evaluate("window.drawings") <= 450  # half of the changes: they are drawn by frame, not one by one
    assert len(server.last_event_ids) == 1, "the stream was never cut"
    assert await sizes(page) == {"jobs": 300, "waiting": 0, "running": 0, "failed": 100, "finished": 200}


async def test_what_is_kept_of_jobs_is_bounded(page: Page, server: MonitorServer) -> None:
    await open_live(page, server)
    for number in range(3000):
        server.put_job(job(f"wait-{number}"))
        server.put_job(job(f"done-{number}", JobStatus.COMPLETED))
        server.put_job(job(f"fail-{number}", JobStatus.TIMEOUT))
    await expect(lane(page, "finished").locator(".count")).to_have_text("3,000", timeout=30_000)

    async def bounded() -> Any:
        return await sizes(page) == {"jobs": 2400, "waiting": 2000, "running": 0, "failed": 200, "finished": 200}

    await eventually(bounded)
    await expect(lane(page, "waiting").locator(".count")).to_have_text("3,000")
    await expect(lane(page, "waiting").locator("li")).to_have_count(25)
    await lane(page, "waiting").get_by_role("button", name="Show 25 more").click()
    await expect(lane(page, "waiting").locator("li")).to_have_count(50)


async def test_only_the_card_that_changed_is_drawn_again(page: Page, server: MonitorServer) -> None:
    fill_with_many(server, machines=5, workers=2)
    await open_live(page, server)
    await expect(page.locator(".card:not([aria-busy])")).to_have_count(5)
    await page.evaluate("""() => {
      window.touched = new Set();
      new MutationObserver((changes) => {
        for (const change of changes) {
          const at = change.target.nodeType === 1 ? change.target : change.target.parentElement;
          const card = at?.closest(".card");
          if (card && !at.closest("time")) window.touched.add(card.dataset.node);
        }
      }).observe(document.querySelector(".cards"),
        { attributes: true, characterData: true, childList: true, subtree: true });
    }""")
    server.put_machine(machine("node-3", health_status="degraded"), [])
    await expect(card(page, "node-3")).to_contain_text("degraded")
    assert await page.evaluate("[...window.touched]") == ["node-3"]
