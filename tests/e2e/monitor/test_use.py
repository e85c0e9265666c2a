"""Finding, reading and acting: filter, one job in full, keyboard, narrow screens, light and dark."""

import base64
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from muster.domain.job import JobStatus
from tests.e2e.monitor.axe import violations
from tests.e2e.monitor.conftest import Watched
from tests.e2e.monitor.fleets import fill_realistically, job, machine, progress, service, worker
from tests.e2e.monitor.test_live import lane, open_live
from tests.monitor_server import MonitorServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")


async def test_words_filter_nodes_and_jobs(page: Page, server: MonitorServer) -> None:
    server.put_machine(machine("a", pool="images", labels={"rack": "b4"}), [worker("a", 0)])
    server.put_machine(machine("b", pool="llm", service_details=[service("ollama", "ollama", ["qwen3:32b"])]), [])
    server.put_job(job("job-1", service_required="comfyui"))
    server.put_job(job("job-2", JobStatus.FAILED, error={"code": "boom", "message": "the images are gone"}))
    await open_live(page, server)
    cards, filter_box = page.locator(".card h3"), page.get_by_label("Filter nodes and jobs")
    found = {"images": ["a"], "QWEN3": ["b"], "rack=b4": ["a"], "images b4": ["a"], "": ["a", "b"]}
    for words, nodes in found.items():
        await filter_box.fill(words)
        await expect(cards).to_have_text(nodes)
    await filter_box.fill("images")
    await expect(lane(page, "waiting")).to_contain_text("None matches the filter.")
    await expect(lane(page, "failed")).to_contain_text("the images are gone")
    await filter_box.fill("nothing like this")
    await page.get_by_role("button", name="Show all").click()
    await expect(cards).to_have_text(["a", "b"])
    await expect(filter_box).to_have_value("")


async def test_labels_filter_nodes_in_a_box_of_their_own_and_in_the_words(page: Page, server: MonitorServer) -> None:
    for number in range(4):
        name = f"n{number}"
        labels = {"zone": "ab"[number % 2]} | ({"tier": "spot"} if number == 3 else {})
        server.put_machine(machine(name, labels=labels), [])
    server.put_job(job("job-1"))
    await open_live(page, server)
    cards, box = page.locator(".card h3"), page.get_by_label("Label", exact=True)
    for wanted, names in [("zone=b", ["n1", "n3"]), ("zone=b, tier", ["n3"]), ("zone=", ["n0", "n1", "n2", "n3"])]:
        await box.fill(wanted)
        await expect(cards).to_have_text(names)
    options = page.locator("#labels option")
    assert await options.evaluate_all("all => all.map((option) => option.value)") == ["tier=spot", "zone=a", "zone=b"]
    await box.fill("")
    words = page.get_by_label("Filter nodes and jobs")
    await words.fill("label:zone=B n3")
    await expect(cards).to_have_text(["n3"])
    await words.fill("label:tier=none")
    await expect(lane(page, "waiting")).to_contain_text("job-1")
    await page.get_by_role("button", name="Show all").click()
    await expect(cards).to_have_count(4)
    await words.focus()
    for _ in range(20):  # by the keyboard alone
        await page.keyboard.press("Tab")
        if await box.evaluate("element => element === document.activeElement"):
            break
    await page.keyboard.type("zone=a")
    await expect(cards).to_have_text(["n0", "n2"])


async def test_an_address_that_leads_nowhere_says_so_with_a_way_back(page: Page, server: MonitorServer) -> None:
    server.put_machine(machine("a"), [])
    await open_live(page, server)
    await page.evaluate("location.hash = '#/nowhere/at-all'")
    await expect(page.locator("main")).to_contain_text("Nothing of this monitor is at #/nowhere/at-all.")
    assert await violations(page) == []
    await page.get_by_role("link", name="To the fleet").click()
    await expect(page.locator(".card h3")).to_have_text(["a"])


async def test_health_filters_nodes_and_follows_their_changes(page: Page, server: MonitorServer) -> None:
    server.put_machine(machine("a"), [])
    server.put_machine(machine("b", health_status="stale"), [])
    await open_live(page, server)
    cards = page.locator(".card h3")
    await page.get_by_role("button", name="stale 1").click()
    await expect(cards).to_have_text(["b"])
    server.put_machine(machine("a", health_status="stale"), [])
    await expect(cards).to_have_text(["a", "b"])
    await expect(page.get_by_role("button", name="stale 2")).to_have_attribute("aria-pressed", "true")
    await page.get_by_role("button", name="all 2").click()
    await expect(cards).to_have_text(["a", "b"])


async def test_one_job_is_shown_in_full(page: Page, server: MonitorServer) -> None:
    server.put_job(
        job(
            "job-1",
            JobStatus.FAILED,
            payload={"prompt": "a red fox"},
            requirements={"models": ["flux-dev"]},
            result={"partial": 3},
            error={"code": "out_of_memory", "message": "needs 30 GB"},
            worker_id="a-worker-0",
            attempt=2,
            retry_count=1,
            customer_id="acme",
        )
    )
    await open_live(page, server)
    await page.locator('[data-job="job-1"]').click()
    drawer = page.get_by_role("dialog")
    for words in ["failed", "out_of_memory", "needs 30 GB", "a red fox", '"partial": 3', "flux-dev"]:
        await expect(drawer).to_contain_text(words)
    for words in ["a-worker-0", "acme"]:
        await expect(drawer.locator("dl")).to_contain_text(words)
    await expect(drawer).to_contain_text("2 (1 of 3 retries used)")
    assert page.url.endswith("#/jobs/job-1")
    await page.reload()
    await expect(drawer).to_contain_text("a red fox")
    await page.get_by_role("button", name="Close").click()
    await expect(drawer).to_have_count(0)


async def test_a_job_shows_what_it_makes_so_far_with_the_token_of_the_tab(
    page: Page, server: MonitorServer, watched: Watched
) -> None:
    watched.expect_trouble("401")  # before the tab has its token
    server.token = "correct horse"
    server.files = {"/api/files/job-1/1-preview.gif": PIXEL}
    server.put_job(job("job-1", JobStatus.IN_PROGRESS, progress=progress(0.3)))
    await page.goto(server.url)
    await page.evaluate("sessionStorage.setItem('muster-token', 'correct horse')")
    await page.goto(f"{server.url}/#/jobs/job-1")
    await page.reload()
    preview = page.get_by_role("img", name="what it looks like so far")
    await expect(page.get_by_role("dialog")).to_contain_text("30 %")
    await expect(preview).to_have_count(0)
    shown = set()
    for count in (1, 2):
        server.put_progress("job-1", 0.4, "sampling", f"/api/files/job-1/1-preview.gif?n={count}")
        await expect(preview).to_have_js_property("naturalWidth", 1)
        shown.add(await preview.get_attribute("src"))
    server.put_progress("job-1", 0.5, "sampling", "https://elsewhere.example/x.png")
    await expect(preview).to_have_count(0)
    assert all(source and source.startswith("blob:") for source in shown)


async def test_a_waiting_job_tells_why_in_the_words_of_the_server(page: Page, server: MonitorServer) -> None:
    server.put_job(job("job-1", JobStatus.UNWORKABLE))
    server.explanations["job-1"] = {
        "summary": "Nobody has the model.",
        "position": None,
        "can_run": [],
        "candidates": [
            {
                "class_id": "c1",
                "sessions": 2,
                "mismatches": [{"requirement": "models", "wanted": "x", "found": "", "text": "lacks the model x"}],
            }
        ],
    }
    await page.goto(f"{server.url}/#/jobs/job-1")
    drawer = page.get_by_role("dialog")
    for words in ["Why it waits", "Nobody has the model.", "c1", "2 workers online", "lacks the model x"]:
        await expect(drawer).to_contain_text(words)
    server.put_job(job("job-1", JobStatus.COMPLETED, result={"answer": 42}))
    await expect(drawer).to_contain_text('"answer": 42')
    await expect(drawer).not_to_contain_text("Why it waits")


async def test_a_job_is_cancelled_after_a_second_thought_and_retried(page: Page, server: MonitorServer) -> None:
    server.put_job(job("job-1", JobStatus.IN_PROGRESS, progress=progress(0.3)))
    await page.goto(f"{server.url}/#/jobs/job-1")
    drawer = page.get_by_role("dialog")
    await drawer.get_by_role("button", name="Cancel job").click()
    await drawer.get_by_role("button", name="Keep it").click()
    await drawer.get_by_role("button", name="Cancel job").click()
    await drawer.get_by_role("button", name="Yes, cancel it").click()
    await expect(drawer.locator(".badge")).to_have_text("cancelled")
    await expect(lane(page, "finished")).to_contain_text("job-1")
    await drawer.get_by_role("button", name="Retry job").click()
    await expect(drawer.locator(".badge")).to_have_text("pending")
    await expect(lane(page, "waiting")).to_contain_text("job-1")


async def test_a_refused_action_says_why(page: Page, watched: Watched, server: MonitorServer) -> None:
    watched.expect_trouble("409")
    server.put_job(job("job-1", JobStatus.IN_PROGRESS))
    await page.goto(f"{server.url}/#/jobs/job-1")
    drawer = page.get_by_role("dialog")
    await drawer.get_by_role("button", name="Cancel job").click()
    server.jobs["job-1"]["status"] = "completed"
    await drawer.get_by_role("button", name="Yes, cancel it").click()
    await expect(drawer.get_by_role("alert")).to_have_text("the job is completed already")


async def test_a_job_that_does_not_exist_is_said_to_be_missing(
    page: Page, watched: Watched, server: MonitorServer
) -> None:
    watched.expect_trouble("404")
    await page.goto(f"{server.url}/#/jobs/ghost")
    await expect(page.get_by_role("dialog")).to_contain_text("no job ghost")


async def test_everything_can_be_reached_by_keyboard(page: Page, server: MonitorServer) -> None:
    server.put_machine(machine("a"), [worker("a", 0, "busy", ["job-1"])])
    server.put_job(job("job-1", JobStatus.IN_PROGRESS))
    await open_live(page, server)
    await page.keyboard.press("/")
    await expect(page.get_by_label("Filter nodes and jobs")).to_be_focused()
    row = page.locator('[data-job="job-1"]')
    while not await row.evaluate("row => row === document.activeElement"):
        before = await page.evaluate("document.activeElement.outerHTML")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.outerHTML") != before
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Close")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(row).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_realistic_fleet_in_light_and_dark(
    page: Page, server: MonitorServer, scheme: str, artifacts: Path
) -> None:
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    fill_realistically(server)
    await open_live(page, server)
    await expect(page.locator(".card")).to_have_count(8)
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(14, 17, 21)" if scheme == "dark" else "rgb(244, 245, 247)")
    await page.screenshot(path=artifacts / f"monitor-{scheme}.png")
    await page.locator('[data-job^="job-01jbq7w0"]').click()
    await expect(page.get_by_role("dialog")).to_contain_text("deepseek")
    await expect(page.get_by_role("dialog")).to_contain_text("Why it waits")
    await page.screenshot(path=artifacts / f"monitor-{scheme}-job.png")


async def test_a_narrow_screen_shows_nodes_or_jobs_without_scrolling_sideways(
    browser: Browser, server: MonitorServer, artifacts: Path
) -> None:
    fill_realistically(server)
    context = await browser.new_context(viewport={"width": 360, "height": 780}, device_scale_factor=2)
    page = await context.new_page()
    await open_live(page, server)
    await expect(page.locator("#jobs")).to_be_hidden()
    await page.screenshot(path=artifacts / "monitor-narrow-nodes.png")
    await page.get_by_label("Pages").get_by_role("link", name="Jobs 19").click()
    await expect(page.locator("#jobs")).to_be_visible()
    await expect(page.locator("#fleet")).to_have_count(0)
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    await page.screenshot(path=artifacts / "monitor-narrow-jobs.png")
    await page.locator('[data-job^="job-01jbq7t8"]').click()
    await expect(page.get_by_role("dialog")).to_contain_text("CUDA out of memory")
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    await page.screenshot(path=artifacts / "monitor-narrow-job.png")
    await context.close()
