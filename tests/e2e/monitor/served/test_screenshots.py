"""The pictures that the documents show, of a fleet in the middle of its day; `make images` puts them in their place."""

from typing import Literal

import pytest
from playwright.async_api import FloatRect, Page, expect

from tests.e2e.monitor.conftest import ARTIFACTS
from tests.e2e.monitor.lively import SHOWN_NODE, Lively
from tests.integration.api.conftest import Served
from tests.integration.gateway.engine import Engine, llama

pytestmark = pytest.mark.asyncio(loop_scope="session")

PICTURES = ARTIFACTS / "docs"
BYTES_MAX = 300_000
WIDTH, HEIGHT = 1440, 960
BOTTOM = """() => {
  const parts = [...document.querySelectorAll("main > *, [role=dialog]")];
  return Math.max(...parts.map((part) => part.getBoundingClientRect().bottom));
}"""


async def take(page: Page, name: str) -> None:
    """In light and dark, when nothing on it is still loading."""
    await expect(page.get_by_text("Loading …")).to_have_count(0)
    bottom = await page.evaluate(BOTTOM)
    shown: FloatRect = {"x": 0, "y": 0, "width": WIDTH, "height": min(HEIGHT, bottom + 24)}
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        await page.emulate_media(color_scheme=scheme)
        path = PICTURES / f"{name}-{scheme}.png"
        await page.screenshot(path=path, clip=shown)
        assert path.stat().st_size < BYTES_MAX, f"{path.name} is too large for a document"


async def test_the_pages_as_the_documents_show_them(page: Page, served: Served) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    async with Engine(llama) as engine:
        lively = Lively(served, engine.url)
        await lively.begin()
        await expect(page.locator(".card:not([aria-busy])")).to_have_count(6)
        await expect(page.locator(".lane.running .count")).to_have_text("7")
        await take(page, "fleet")

        await page.get_by_role("link", name=SHOWN_NODE, exact=True).click()
        await expect(page.get_by_role("heading", name="The last 15 minutes")).to_be_visible()
        await take(page, "node")

        await page.goto(f"{served.url}/#/jobs/{lively.shown_job}")
        await expect(page.get_by_role("dialog")).to_contain_text("a lighthouse at dusk")
        await take(page, "job")
        await page.keyboard.press("Escape")

        for name, there in {"Models": "qwen3:32b", "Queues": "comfyui", "Gateway": "llama3.2:3b"}.items():
            await page.get_by_label("Pages").get_by_role("link", name=name).click()
            await expect(page.locator("main")).to_contain_text(there)
            if name == "Gateway":
                await page.locator(".chat select").select_option("qwen3:32b")
                await page.get_by_label("Say something").fill("Tell me a story.")
                await page.get_by_role("button", name="Send").click()
                await expect(page.locator(".chat [role=status]")).to_contain_text("first token after")
            await take(page, name.lower())
