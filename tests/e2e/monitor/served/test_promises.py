"""What the four original systems promised of their monitors, row by row, where no other test of a page shows it."""

from http import HTTPStatus
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from muster.domain.job import JobStatus
from muster.domain.node import Health, Phase
from muster.domain.worker import Worker, WorkerStatus
from muster.ids import JobId, NodeId, worker_id
from tests.e2e.monitor.conftest import Watched
from tests.e2e.monitor.test_live import card, lane
from tests.integration.api.conftest import Served
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_1_2_a_card_comes_without_a_reload_and_says_starting_ready_and_error(page: Page, served: Served) -> None:
    told = {Phase.STARTING: "starting", Phase.READY: "ready", Phase.ERROR: "error"}
    for seq, (phase, word) in enumerate(told.items(), start=1):
        await served.plane.heartbeat("n1", seq=seq, phase=phase)
        await expect(card(page, "n1").locator("header .tag")).to_have_text(word)


async def test_1_3_the_stream_is_open_and_the_console_tells_of_it(browser: Browser, served: Served) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    async with page.expect_response(lambda answer: "/api/events/monitor" in answer.url) as opened:
        await page.goto(served.url)
    stream = await opened.value
    assert stream.status == HTTPStatus.OK
    assert stream.headers["content-type"].startswith("text/event-stream")
    await eventually(lambda: "muster: live" in said)
    assert "muster: connected, waiting for the state" in said
    await served.plane.hub.stop()
    await eventually(lambda: any(text.startswith("muster: disconnected (") for text in said))
    await context.close()


async def test_1_4_the_state_is_asked_for_every_few_seconds(browser: Browser, served: Served) -> None:
    context = await browser.new_context()
    watched = Watched(await context.new_page())
    page = watched.page
    await page.clock.install()
    await page.goto(served.url)
    await page.clock.run_for(1000)
    await expect(page.locator(".connection")).to_have_text("live")
    for _ in range(2):
        async with page.expect_response(lambda answer: "/api/monitor/state" in answer.url) as asked:
            await page.clock.run_for(10_000)
        answer: dict[str, Any] = await (await asked.value).json()
        assert answer["success"]
        assert {"machines", "workers", "jobs", "system_stats"} <= answer["data"].keys()
    assert not watched.surprises
    await context.close()


async def test_1_5_a_worker_is_seen_busy_with_its_job_and_idle_again(page: Page, served: Served) -> None:
    node = NodeId("n1")

    async def beat(seq: int, *jobs: JobId) -> None:
        status = WorkerStatus.BUSY if jobs else WorkerStatus.IDLE
        worker = Worker(worker_id=worker_id(node, 0), index=0, status=status, current_jobs=jobs)
        await served.plane.heartbeat(node, seq=seq, workers=(worker,))

    workers = card(page, "n1").get_by_role("list", name="Workers")
    await beat(1)
    await expect(workers).to_contain_text("idle")
    job_id = await served.plane.submit("job-1")
    await beat(2, job_id)
    await expect(workers).to_contain_text("busy")
    await expect(workers.locator("a.current")).to_have_attribute("href", "#/jobs/job-1")
    await beat(3)
    await expect(workers).to_contain_text("idle")


async def test_f2_s2_however_often_a_state_flaps_the_last_one_is_shown(page: Page, served: Served) -> None:
    for seq in range(1, 400):
        health = Health.DEGRADED if seq % 2 else Health.HEALTHY
        await served.plane.heartbeat("n1", seq=seq, status=health, reason="the disk is full" if seq % 2 else None)
    await expect(card(page, "n1")).to_contain_text("degraded")
    await expect(card(page, "n1")).to_contain_text("the disk is full")


async def test_lesson_state_that_was_written_without_an_event_is_shown(browser: Browser, served: Served) -> None:
    """A job that another process put into the store is there; no event of it was ever seen by this page."""
    await served.plane.submit("job-before")
    await served.plane.hub.stop()
    context = await browser.new_context()
    watched = Watched(await context.new_page())
    await served.plane.hub.start()
    await watched.page.goto(served.url)
    await expect(lane(watched.page, "waiting")).to_contain_text("job-before")
    assert not watched.surprises
    await context.close()


async def test_lesson_every_status_of_the_server_has_its_lane_and_its_word(page: Page, served: Served) -> None:
    """Originals counted words that no server wrote: a new status here fails this test before it hides jobs."""
    found: dict[str, str] = await page.evaluate(
        """async (words) => {
      const { laneOf } = await import("/web/core/state.js");
      return Object.fromEntries(words.map((word) => [word, laneOf(word)]));
    }""",
        [status.value for status in JobStatus],
    )
    assert found == {
        "pending": "waiting",
        "unworkable": "waiting",
        "assigned": "running",
        "in_progress": "running",
        "completed": "finished",
        "cancelled": "finished",
        "failed": "failed",
        "timeout": "failed",
    }
    held = await page.evaluate("""async () => {
      const { HEALTH, JOB_STATUS } = await import("/web/core/vocabulary.js");
      return { health: HEALTH, jobs: JOB_STATUS };
    }""")
    assert held == {"health": [health.value for health in Health], "jobs": [status.value for status in JobStatus]}


async def test_2_4_the_address_of_the_proxy_shows_the_fleet(browser: Browser, served: Served) -> None:
    await served.plane.heartbeat("gpu-1")
    context = await browser.new_context()
    watched = Watched(await context.new_page())
    await watched.page.goto(f"{served.url}/_/ui")
    await expect(card(watched.page, "gpu-1")).to_contain_text("healthy")
    assert not watched.surprises
    await context.close()
