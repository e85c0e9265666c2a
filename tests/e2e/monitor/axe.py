"""What axe finds on a page that goes against WCAG 2.2 AA."""

from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

_RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}


async def violations(page: Page) -> list[str]:
    found: dict[str, Any] = (await Axe().run(page, options=_RULES)).response
    assert found["passes"], "axe looked at nothing"
    hits = ((rule["id"], node) for rule in found["violations"] for node in rule["nodes"])
    return [f"{rule}: {node['target']} {node['failureSummary']}" for rule, node in hits]
