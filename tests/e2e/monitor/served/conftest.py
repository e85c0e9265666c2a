from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from muster.connectors.catalog import job_kinds
from tests.e2e.monitor.conftest import Watched
from tests.integration.api.conftest import Served, serving


@pytest_asyncio.fixture(loop_scope="session")
async def served() -> AsyncIterator[Served]:
    async with serving(kinds=job_kinds()) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, served: Served) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport={"width": 1440, "height": 960})
    watched = Watched(await context.new_page())
    await watched.page.goto(served.url)
    await expect(watched.page.locator(".connection")).to_have_text("live")
    yield watched.page
    surprises = watched.surprises
    await context.close()
    assert not surprises
