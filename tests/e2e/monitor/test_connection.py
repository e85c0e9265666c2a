"""The connection is always visible, comes back by itself, and what is shown equals what the server holds."""

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from muster.domain.job import JobStatus
from tests.e2e.monitor.conftest import Watched
from tests.e2e.monitor.fleets import job, machine, worker
from tests.e2e.monitor.test_live import card, lane, open_live
from tests.monitor_server import MonitorServer
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

AWAY = r"ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY_RESPONSE"


async def test_a_server_that_was_killed_and_restarted_is_found_again(
    page: Page, watched: Watched, server: MonitorServer
) -> None:
    watched.expect_trouble(AWAY)
    server.put_machine(machine("old"), [worker("old", 0)])
    server.put_job(job("job-1", JobStatus.IN_PROGRESS))
    await open_live(page, server)
    await server.stop()
    await expect(page.locator(".connection")).to_contain_text("server away since")
    await expect(page.locator(".connection")).to_contain_text("reconnecting")
    await expect(page.locator("main")).to_have_class("last-known page-fleet")
    await expect(card(page, "old")).to_be_visible()

    server.machines.clear()
    server.workers.clear()
    server.forget_log()
    server.machines["new"] = machine("new")
    server.workers["new"] = [worker("new", 0, "busy")]
    server.jobs["job-1"] = job("job-1", JobStatus.COMPLETED)
    await server.start()
    await expect(page.locator(".connection")).to_have_text("live", timeout=20_000)
    await expect(page.locator(".card h3")).to_have_text(["new"])
    await expect(card(page, "new")).to_contain_text("busy")
    await expect(lane(page, "running")).to_contain_text("Nothing runs.")
    await expect(lane(page, "finished")).to_contain_text("job-1")


async def test_a_cut_stream_resumes_after_the_last_event_it_heard(
    page: Page, watched: Watched, server: MonitorServer
) -> None:
    watched.expect_trouble(AWAY)
    await open_live(page, server)
    server.put_job(job("before"))
    await expect(lane(page, "waiting")).to_contain_text("before")
    server.cut()
    await eventually(lambda: server.readers == 0)
    server.put_job(job("meanwhile"))
    await expect(lane(page, "waiting")).to_contain_text("meanwhile")
    await expect(lane(page, "waiting")).to_contain_text("before")
    await expect(page.locator(".connection")).to_have_text("live")
    assert server.last_event_ids == [None, "1"]


async def test_a_resync_takes_the_whole_state_anew(page: Page, server: MonitorServer) -> None:
    server.put_machine(machine("a"), [])
    server.put_job(job("gone"))
    await open_live(page, server)
    await expect(lane(page, "waiting")).to_contain_text("gone")
    server.machines = {"b": machine("b")}
    server.workers = {"b": []}
    server.jobs = {"kept": job("kept")}
    server.resync("this reader was too slow")
    await expect(page.locator(".card h3")).to_have_text(["b"])
    await expect(lane(page, "waiting").locator("code")).to_have_text(["kept"])
    await expect(page.locator(".connection")).to_have_text("live")


async def test_a_server_in_trouble_is_asked_again_with_growing_pauses(
    page: Page, watched: Watched, server: MonitorServer
) -> None:
    watched.expect_trouble("503")
    pauses: list[int] = []
    page.on("console", lambda m: pauses.extend(int(ms) for ms in re.findall(r"next try in (\d+) ms", m.text)))
    server.stream_status = 503
    await page.goto(server.url)
    await expect(page.locator(".connection")).to_contain_text("reconnecting in")
    await expect(page.locator(".connection")).to_have_attribute("title", "the store does not answer")
    for failures in range(2, 7):
        await page.get_by_role("button", name="Now").click()
        await eventually(lambda: len(pauses) >= failures)  # noqa: B023 (awaited before the next turn)
    longest = [1000, 2000, 4000, 8000, 15_000, 15_000]
    assert [round(0.75 * ms) <= pause <= ms for pause, ms in zip(pauses, longest, strict=True)] == [True] * 6
    server.stream_status = 200
    await page.get_by_role("button", name="Now").click()
    await expect(page.locator(".connection")).to_have_text("live")


async def test_a_connection_that_went_silent_is_replaced(page: Page, server: MonitorServer) -> None:
    await page.clock.install()
    await page.goto(server.url)
    await page.clock.run_for(1000)
    await expect(page.locator(".connection")).to_have_text("live")
    server.mute = True
    async with page.expect_console_message(lambda message: "nothing heard for 20 s" in message.text):
        await page.clock.run_for(20_500)
    server.mute = False
    server.put_machine(machine("after"), [])
    await page.clock.run_for(2000)
    await expect(page.locator(".connection")).to_have_text("live")
    await page.clock.run_for(1000)
    await expect(card(page, "after")).to_be_visible()


async def test_state_that_differs_from_the_servers_is_noticed_without_any_event(
    page: Page, server: MonitorServer
) -> None:
    await page.clock.install()
    server.put_machine(machine("a"), [])
    server.put_job(job("phantom", JobStatus.IN_PROGRESS))
    await page.goto(server.url)
    await page.clock.run_for(1000)
    await expect(lane(page, "running")).to_contain_text("phantom")
    server.machines["silent"] = machine("silent")
    server.workers["silent"] = []
    server.jobs = {"next": job("next")}

    async def caught_up() -> Any:
        await page.clock.run_for(5000)
        return await card(page, "silent").is_visible()

    await eventually(caught_up, timeout_s=30)
    await expect(lane(page, "running")).to_contain_text("Nothing runs.")
    await expect(lane(page, "waiting")).to_contain_text("next")


async def test_a_token_is_asked_for_checked_and_kept_for_the_tab(
    page: Page, watched: Watched, server: MonitorServer
) -> None:
    watched.expect_trouble("401")
    server.token = "correct horse"
    server.put_machine(machine("secret"), [])
    await page.goto(server.url)
    await expect(page.locator(".connection")).to_have_text("token needed")
    await expect(page.locator("form.token")).to_contain_text("a token is needed")
    await page.get_by_label("Token").fill("wrong")
    await page.keyboard.press("Enter")
    await expect(page.locator("form.token")).to_contain_text("this token is not known")
    await page.get_by_label("Token").fill("correct horse")
    await page.get_by_role("button", name="Open the monitor").click()
    await expect(page.locator(".connection")).to_have_text("live")
    await expect(card(page, "secret")).to_be_visible()
    await page.reload()
    await expect(card(page, "secret")).to_be_visible()
    assert "horse" not in page.url


async def test_a_token_that_may_not_see_the_fleet_is_told_so_in_words(
    page: Page, watched: Watched, server: MonitorServer
) -> None:
    watched.expect_trouble("40[13]")
    server.token = "correct horse"
    await page.goto(server.url)
    await page.get_by_label("Token").fill(server.lesser_token)
    await page.keyboard.press("Enter")
    await expect(page.locator(".connection")).to_have_text("not allowed")
    await expect(page.locator("form.token")).to_contain_text("This token may not see the fleet")
    await expect(page.locator("form.token")).to_contain_text("this needs viewer")
    await page.get_by_label("Token").fill("correct horse")
    await page.keyboard.press("Enter")
    await expect(page.locator(".connection")).to_have_text("live")


async def test_a_newer_server_offers_to_reload_the_page(page: Page, server: MonitorServer) -> None:
    await open_live(page, server)
    server.version = "0.2.0"
    server.put_stats()
    await expect(page.locator(".updated")).to_contain_text("The server is now version 0.2.0.")
    await page.get_by_role("button", name="Reload the page").click()
    await expect(page.locator(".updated")).to_have_count(0)
    await expect(page.locator("h1")).to_contain_text("0.2.0")


async def test_what_changes_without_an_event_of_its_own_is_taken_in(page: Page, server: MonitorServer) -> None:
    await page.clock.install()
    server.put_job(job("job-1", JobStatus.UNWORKABLE))
    await page.goto(server.url)
    await page.clock.run_for(1000)
    await expect(lane(page, "waiting")).to_contain_text("no node can run this")
    server.jobs["job-1"]["status"] = "pending"  # a worker that can run it came
    server.jobs["job-0"] = job("job-0", priority=90)  # the head of a queue that is longer than a snapshot
    await page.clock.run_for(10_500)
    await expect(lane(page, "waiting").locator("code")).to_have_text(["job-0", "job-1"])
    await expect(lane(page, "waiting")).not_to_contain_text("no node can run this")
    assert len(server.last_event_ids) == 1, "the stream was not opened anew for this"
