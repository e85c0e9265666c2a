"""The line on a node's card: its use of late, read once and then drawn on."""

from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from muster.domain.gpu import Gpu
from muster.domain.node import Resources
from tests.e2e.monitor.axe import violations
from tests.e2e.monitor.test_live import card
from tests.integration.api.conftest import Served
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

WATCH_READS = """
  window.reads = { of: [], now: 0, most: 0 };
  const send = window.fetch;
  window.fetch = async (path, options) => {
    const node = /nodes\\/(.+)\\/history$/.exec(path)?.[1];
    if (!node) return send(path, options);
    reads.of.push(node);
    reads.most = Math.max(reads.most, ++reads.now);
    return send(path, options).finally(() => (reads.now -= 1));
  };
"""


async def beat(served: Served, seq: int, *uses: float | None, node: str = "n1", after_s: float = 10.0) -> None:
    """Let time pass, then say how much the GPUs of a node are used."""
    served.plane.clock.advance(after_s)
    gpus = tuple(Gpu(index=i, name="NVIDIA L4", utilization_percent=use) for i, use in enumerate(uses))
    await served.plane.heartbeat(node, seq=seq, gpus=gpus, resources=Resources(cpu_percent=12.0))


def spark(page: Page, node: str) -> Locator:
    return card(page, node).locator(".spark svg")


async def strokes(page: Page) -> tuple[int, int]:
    """Return how many pieces the line of n1 has, and through how many points it goes."""
    path = await spark(page, "n1").locator("path").get_attribute("d") or ""
    return path.count("M"), path.count("M") + path.count("L")


async def is_read(page: Page, node: str) -> bool:
    reads: dict[str, Any] = await page.evaluate("reads")
    return node in reads["of"] and reads["now"] == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_card_shows_the_use_of_the_last_minutes_and_follows_it(page: Page, served: Served, scheme: str) -> None:
    await page.goto("about:blank")
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await beat(served, 1, 80.0, 60.0)
    await beat(served, 2, 100.0, 94.0)
    await beat(served, 3, None, None)
    await beat(served, 4, 30.0, None)
    await beat(served, 5, 41.0, 39.0, after_s=120)
    await beat(served, 1, node="plain", after_s=0)
    await page.goto(served.url)
    words = "GPU use in the last 15 minutes, now {} %, at most 97 %"
    await expect(spark(page, "n1")).to_have_attribute("aria-label", words.format(40))
    await expect(card(page, "n1").get_by_title(words.format(40))).to_be_visible()
    assert await strokes(page) == (3, 4), "unknown, and not heard of for two minutes, are gaps"
    await expect(spark(page, "plain")).to_have_attribute(
        "aria-label", "CPU use in the last 15 minutes, now 12 %, at most 12 %"
    )
    assert await violations(page) == []

    await beat(served, 6, 50.0, 60.0)
    await expect(spark(page, "n1")).to_have_attribute("aria-label", words.format(55))
    assert await strokes(page) == (3, 5)
    async with page.expect_response(lambda answer: answer.url.endswith("/n1/history")):
        await beat(served, 7, 70.0, 70.0, after_s=300)  # what was meanwhile is the server's to know
    await expect(spark(page, "n1")).to_have_attribute("aria-label", words.format(70))
    assert await strokes(page) == (4, 6)
    await beat(served, 8, 10.0, 20.0, after_s=890)
    await expect(spark(page, "n1")).to_have_attribute(
        "aria-label", "GPU use in the last 15 minutes, now 15 %, at most 70 %"
    )


async def test_histories_are_read_one_at_a_time_once_each_and_only_of_cards_near_the_screen(
    page: Page, served: Served
) -> None:
    await page.goto("about:blank")
    for number in range(60):
        await beat(served, 1, 20.0, node=f"n-{number}", after_s=0)
    await page.add_init_script(WATCH_READS)
    await page.goto(served.url)
    await expect(spark(page, "n-0")).to_be_visible()
    await eventually(lambda: is_read(page, "n-0"))
    assert "n-59" not in await page.evaluate("reads.of")
    await card(page, "n-59").scroll_into_view_if_needed()
    await eventually(lambda: is_read(page, "n-59"))
    await card(page, "n-0").scroll_into_view_if_needed()
    await expect(spark(page, "n-0")).to_be_visible()
    reads = await page.evaluate("reads")
    assert reads["most"] == 1
    assert len(reads["of"]) == len(set(reads["of"])) < 60
