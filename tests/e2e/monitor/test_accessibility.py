"""The page against WCAG 2.2 AA, as axe checks it, in light and dark."""

import pytest
from playwright.async_api import Page, expect

from tests.e2e.monitor.axe import violations
from tests.e2e.monitor.fleets import fill_realistically
from tests.e2e.monitor.test_live import open_live
from tests.monitor_server import MonitorServer

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_fleet_and_a_job_can_be_read_by_everybody(page: Page, server: MonitorServer, scheme: str) -> None:
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    fill_realistically(server)
    await open_live(page, server)
    await expect(page.locator(".card")).to_have_count(8)
    assert await violations(page) == []
    await page.get_by_role("button", name="Table").click()
    assert await violations(page) == []
    await page.locator('[data-job^="job-01jbq7w0"]').click()
    await expect(page.get_by_role("dialog")).to_contain_text("Why it waits")
    assert await violations(page) == []
