"""What is used, and what tokens may use, on the page, against the real API."""

import time
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from muster.access.allowance import Allowance
from muster.access.roles import Role
from muster.access.tokens import Wanted
from muster.domain.usage import Use
from tests.e2e.monitor.axe import violations
from tests.e2e.monitor.conftest import ARTIFACTS
from tests.integration.api.conftest import Served, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def spend(served: Served) -> None:
    """Let two tokens use two models, three days ago and today."""
    plane = served.plane
    plane.clock.advance(time.time() - plane.clock.now_ms() / 1000 - 3 * 86_400)
    shop, _ = await plane.access.create(
        Wanted(
            name="shop",
            role=Role.CLIENT,
            allowance=Allowance(models=("llama*", "qwen3:8b"), requests_per_min=60, tokens_per_day=100_000),
        )
    )
    lab, _ = await plane.access.create(Wanted(name="lab", role=Role.OPERATOR))
    for pause_s in (0, 2 * 86_400, 86_400):
        plane.clock.advance(pause_s)
        for token, model, tokens, energy_mwh in (
            (shop.token_id, "llama3.1:70b", 31_000, 41_000),
            (shop.token_id, "qwen3:8b", 12_500, 3_500),
            (lab.token_id, "llama3.1:70b", 4_000, None),
        ):
            plane.metering.take(
                Use(
                    token=token,
                    model=model,
                    prompt_tokens=tokens // 3,
                    completion_tokens=tokens - tokens // 3,
                    worker_ms=tokens * 20,
                    energy_mwh=energy_mwh,
                    estimated=energy_mwh is None,
                )
            )
        await plane.metering.sync()


async def open_as_admin(page: Page, served: Served, name: str) -> None:
    await page.goto(f"{served.url}/#/{name}")
    await page.get_by_label("Token").fill("admin-secret")
    await page.get_by_role("button", name="Open the monitor").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_usage_is_shown_by_token_and_model_and_exported(browser: Browser, scheme: str, tmp_path: Path) -> None:
    async with serving(token="admin-secret") as served, await browser.new_context() as context:
        await spend(served)
        page = await context.new_page()
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        await open_as_admin(page, served, "usage")
        first = page.locator("tbody tr").first
        for shown in ("shop", "llama3.1:70b", "93,000", "123.0 Wh"):
            await expect(first).to_contain_text(shown)
        await expect(page.locator("tbody tr")).to_have_count(3)
        await expect(page.get_by_label("By day").locator("figure").first).to_contain_text("47,500")
        assert await violations(page) == []
        await page.screenshot(path=ARTIFACTS / f"monitor-usage-{scheme}.png")

        async with page.expect_download() as download:
            await page.get_by_role("button", name="Export as CSV").click()
        await (await download.value).save_as(tmp_path / "usage.csv")
        lines = (tmp_path / "usage.csv").read_text().splitlines()
        assert lines[0].startswith("at,token,token_name,model,requests")
        assert len(lines) == 1 + 9

        await page.get_by_label("Time").select_option("7")
        await expect(page.locator("tbody tr")).to_have_count(3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_what_a_token_may_use_is_seen_and_changed(browser: Browser, scheme: str) -> None:
    async with serving(token="admin-secret") as served, await browser.new_context() as context:
        await spend(served)
        page = await context.new_page()
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        await open_as_admin(page, served, "access")
        row = page.locator('[data-token="shop"]')
        for shown in ("llama*, qwen3:8b", "60 of 60 requests left this minute", "56,500 of 100,000 tokens left today"):
            await expect(row).to_contain_text(shown)
        await expect(page.locator('[data-token="lab"]')).to_contain_text("no limit")

        await row.get_by_role("button", name="Limits").click()
        form = page.get_by_role("form", name="What shop may use")
        await form.get_by_label("Models").fill("qwen3:8b")
        await form.get_by_label("Requests a minute").fill("")
        await form.get_by_label("Tokens a month").fill("1000000")
        await form.get_by_label("Weight in line").fill("2.5")
        await form.get_by_label("Priority").fill("20")
        assert await violations(page) == []
        await page.screenshot(path=ARTIFACTS / f"monitor-limits-{scheme}.png")
        await form.get_by_role("button", name="Save").click()
        await expect(form).to_have_count(0)
        await expect(row).to_contain_text("869,500 of 1,000,000 tokens left this month")
        await expect(row).not_to_contain_text("requests left")
        (token,) = [token for token, _ in await served.plane.access.tokens() if token.name == "shop"]
        assert token.allowance == Allowance(
            models=("qwen3:8b",), tokens_per_day=100_000, tokens_per_month=1_000_000, weight=2.5, priority=20
        )
        await expect(row).to_contain_text("weight 2.5 in line")
        await expect(row).to_contain_text("priority 20")
