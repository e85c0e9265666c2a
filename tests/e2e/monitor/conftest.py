import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tests.monitor_server import MonitorServer

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
INSTALL = "sudo apt-get install -y --no-install-recommends chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str:
    """Return the browser's path, or fail with what installs it: a skipped test would prove nothing."""
    for name in (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"):
        if name and (found := shutil.which(name)):
            return found
    pytest.fail(f"the monitor's tests need Chromium: {INSTALL} (or set CHROMIUM to its path)", pytrace=False)


class Watched:
    """A page and all that went wrong on it: console errors, failed requests, uncaught exceptions."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        # A page that is left gives up what it was reading.
        self.expected = [r"failed: GET \S+ net::ERR_ABORTED"]
        page.on("console", lambda m: self._note(m.text) if m.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: self._note(f"uncaught: {error}"))
        page.on("requestfailed", lambda r: self._note(f"failed: {r.method} {r.url} {r.failure}"))
        page.on("response", lambda r: self._note(f"{r.status} {r.url}") if r.status >= 400 else None)

    def _note(self, problem: str) -> None:
        self.problems.append(problem)

    def expect_trouble(self, pattern: str) -> None:
        self.expected.append(pattern)

    @property
    def surprises(self) -> list[str]:
        return [p for p in self.problems if not any(re.search(pattern, p) for pattern in self.expected)]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def server() -> AsyncIterator[MonitorServer]:
    server = MonitorServer()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def watched(browser: Browser, server: MonitorServer) -> AsyncIterator[Watched]:
    """Open a page that goes before its server does."""
    assert server.url
    context = await browser.new_context(viewport={"width": 1440, "height": 960})
    watched = Watched(await context.new_page())
    yield watched
    surprises = watched.surprises
    await context.close()
    assert not surprises


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page


@pytest.fixture
def artifacts() -> Path:
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS
