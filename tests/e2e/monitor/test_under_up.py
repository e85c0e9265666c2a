"""The page as `muster up` serves it: a real node, a real job, and a control plane that is killed under it."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.e2e.monitor.conftest import ARTIFACTS, Watched
from tests.muster_process import ControlPlane

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_job_is_seen_running_and_the_page_survives_a_kill(browser: Browser, tmp_path: Path) -> None:
    env = {
        "MUSTER_MODEL": "none",
        "MUSTER_DISCOVER": "false",
        "MUSTER_NODE_ID": "real-node",
        "MUSTER_HEARTBEAT_INTERVAL_S": "1",
        "NUM_GPUS": "2",
    }
    plane = ControlPlane(tmp_path, "up", env=env)
    plane.start()
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    watched = Watched(await context.new_page())
    try:
        await watched.page.goto(plane.url)
        await expect(watched.page.get_by_text("real-node").first).to_be_visible()
        work = {"type": "simulation", "payload": {"duration_ms": 4000, "steps": 40}}
        job_id = plane.post("/api/jobs", work)["job_id"]
        await expect(watched.page.get_by_text("busy").first).to_be_visible()
        await expect(watched.page.get_by_text(job_id).first).to_be_visible()
        ARTIFACTS.mkdir(exist_ok=True)
        await watched.page.screenshot(path=ARTIFACTS / "monitor-under-up.png")
        await shows_what_it_stands_on(watched.page)
        assert not watched.surprises

        plane.kill()
        await expect(watched.page.get_by_text("reconnecting").first).to_be_visible()
        plane.start()

        await expect(watched.page.get_by_text("live", exact=True).first).to_be_visible(timeout=30_000)
        await expect(watched.page.get_by_text("real-node").first).to_be_visible()
        watched.expect_trouble(
            r"ERR_CONNECTION_REFUSED|ERR_INCOMPLETE|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_CONTENT_LENGTH"
        )
        assert not watched.surprises
    finally:
        await context.close()
        plane.kill()


async def shows_what_it_stands_on(page: Page) -> None:
    await page.get_by_role("link", name="real-node", exact=True).first.click()
    start = page.get_by_role("region", name="Start")
    await expect(start).to_contain_text("It came up in")
    await expect(start.locator(".steps li", has_text="join fleet")).to_contain_text("done")
    await page.screenshot(path=ARTIFACTS / "monitor-node-under-up.png", full_page=True)
    await page.get_by_label("Pages").get_by_role("link", name="System").click()
    for part, words in [
        ("store", ["embedded", "valkey", "appended to its file", "primary"]),
        ("planes", ["this one", "leads"]),
        ("links", ["in this process", "1"]),
    ]:
        for word in words:
            await expect(page.locator(f'[data-part="{part}"]')).to_contain_text(word)
    await page.screenshot(path=ARTIFACTS / "monitor-system-under-up.png", full_page=True)
    await page.get_by_label("Pages").get_by_role("link", name="Fleet").click()
