"""The pages beside the fleet, against the real API."""

import asyncio
from http import HTTPStatus

import pytest
from playwright.async_api import Browser, Page, expect

from muster.domain.artifact import Artifact, NodeArtifacts
from muster.domain.job import JobError, JobStatus
from muster.domain.model import Model
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.ids import JobId
from muster.wire import Outcome, OutcomeKind
from tests.e2e.monitor.axe import violations
from tests.e2e.monitor.conftest import ARTIFACTS
from tests.integration.api.conftest import Served, serving
from tests.integration.gateway.engine import TOKENS, Engine, hang, llama, refuse
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def to(page: Page, name: str) -> None:
    await page.get_by_label("Pages").get_by_role("link", name=name).click()


async def fail(served: Served, *names: str) -> None:
    await served.plane.open_session()
    for name in names:
        await served.plane.submit(name, max_retries=0)
        await served.plane.claim()
        error = JobError(code="out_of_memory", message="needs 30 GB")
        await served.plane.claim(
            want=0, done=(Outcome(job_id=JobId(name), attempt=1, kind=OutcomeKind.FAILED, error=error),)
        )


async def test_jobs_are_found_among_all_that_are_kept(page: Page, served: Served) -> None:
    for number in range(60):
        await served.plane.submit(f"job-{number}", customer_id="acme" if number % 2 else None)
    await to(page, "Jobs")
    await page.get_by_role("button", name="Search").click()
    form = page.get_by_role("search")
    await form.get_by_label("Words").fill("job-1")
    await form.get_by_label("Customer").fill("acme")
    await form.get_by_role("button", name="Search").click()
    await expect(page.get_by_role("status").filter(has_text="found")).to_have_text("6 jobs found among 60.")
    await expect(page.locator("tbody tr")).to_have_count(6)
    await page.locator('tbody [data-job="job-13"]').click()
    await expect(page.get_by_role("dialog")).to_contain_text("job-13")
    await page.keyboard.press("Escape")
    await expect(page.locator("tbody tr")).to_have_count(6)


async def test_what_failed_for_one_reason_is_tried_again_together(page: Page, served: Served) -> None:
    await fail(served, "a", "b")
    await to(page, "Jobs")
    await page.get_by_role("button", name="Failures").click()
    row = page.locator(".rows li")
    for words in ["simulation", "out_of_memory", "2 jobs", "needs 30 GB"]:
        await expect(row).to_contain_text(words)
    await page.screenshot(path=ARTIFACTS / "monitor-failures.png")
    await row.get_by_role("button", name="Try again").click()
    await row.get_by_role("button", name="Try again").click()
    await expect(page.get_by_text("None of the jobs that are kept ended so.")).to_be_visible()
    assert {await served.plane.status(JobId(name)) for name in ("a", "b")} == {JobStatus.PENDING}


async def test_a_job_is_submitted_by_a_form_of_its_connectors_schema(page: Page, served: Served) -> None:
    await to(page, "Jobs")
    await page.get_by_role("button", name="Submit").first.click()
    form = page.locator("form.submit")
    await form.get_by_label("duration_ms").fill("250")
    await form.get_by_label("Priority").fill("70")
    await page.screenshot(path=ARTIFACTS / "monitor-submit.png")
    await form.get_by_role("button", name="Submit").click()
    await expect(form.get_by_role("status")).to_contain_text("Submitted:")
    (job,) = (await served.plane.jobs.page(None, None, 10)).jobs
    assert (job.spec.service_required, job.spec.priority) == ("simulation", 70)


async def test_queues_are_held_and_let_go(page: Page, served: Served) -> None:
    await served.plane.submit("job-1")
    await to(page, "Queues")
    row = page.locator('[data-queue="simulation"]')
    await expect(row.locator("td").first).to_contain_text("1")
    await row.get_by_role("button", name="Pause").click()
    await row.get_by_role("button", name="Pause it").click()
    await expect(row).to_contain_text("paused")
    await page.screenshot(path=ARTIFACTS / "monitor-queues.png")
    await served.plane.open_session()
    assert (await served.plane.claim()).jobs == ()
    await row.get_by_role("button", name="Resume").click()
    await expect(row).not_to_contain_text("paused")
    assert len((await served.plane.claim()).jobs) == 1


async def test_a_token_is_made_shown_once_and_revoked(browser: Browser) -> None:
    async with serving(token="admin-secret") as served, await browser.new_context() as context:
        page = await context.new_page()
        await page.goto(f"{served.url}/#/access")
        await page.get_by_label("Token").fill("admin-secret")
        await page.get_by_role("button", name="Open the monitor").click()
        await page.get_by_label("Name").fill("ci")
        await page.get_by_label("Role").select_option("viewer")
        await page.get_by_label("Ends after").fill("7")
        await page.get_by_role("button", name="Make a token").click()
        secret = await page.locator(".secret").inner_text()
        row = page.locator('[data-token="ci"]')
        await expect(row).to_contain_text("viewer")
        await page.screenshot(path=ARTIFACTS / "monitor-tokens.png")
        with_it = {"Authorization": f"Bearer {secret}"}
        assert (await served.client.get("/api/v1/nodes", headers=with_it)).status == HTTPStatus.OK
        await page.get_by_role("button", name="Done").click()
        await expect(page.locator(".secret")).to_have_count(0)
        await row.get_by_role("button", name="Revoke").click()
        await row.get_by_role("button", name="Revoke it").click()
        await expect(row).to_have_count(0)
        assert (await served.client.get("/api/v1/nodes", headers=with_it)).status == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_can_be_read_by_everybody(page: Page, served: Served, scheme: str) -> None:
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    llama = Service(name="llama", connector="llamacpp", status=ServiceStatus.RUNNING, managed=True)
    await served.plane.heartbeat("n1", services=(llama,))
    await fail(served, "a")
    await served.plane.submit("b", customer_id="acme")
    for name in ("Jobs", "Queues", "Usage", "Tokens", "Fleet"):
        await to(page, name)
        await expect(page.get_by_role("heading", level=2).first).to_be_visible()
        assert await violations(page) == [], name
    await page.get_by_role("link", name="n1", exact=True).click()
    await expect(page.locator(".node-page")).to_be_visible()
    assert await violations(page) == []
    await to(page, "Jobs")
    for section in ("Search", "Failures", "Submit"):
        await page.get_by_role("button", name=section).first.click()
        await expect(page.get_by_role("button", name=section).first).to_have_attribute("aria-pressed", "true")
        assert await violations(page) == [], section


async def serve_tiny(served: Served, engine: Engine, slots: int | None = None) -> None:
    """Have a node offer the model "tiny", answered by this engine."""
    service = Service(
        name="llama",
        connector="llamacpp",
        status=ServiceStatus.RUNNING,
        url=engine.url,
        dialects=(Dialect.OPENAI,),
        models=(Model(name="tiny", resident=True, capabilities=("completion",)),),
        slots=slots,
    )
    await served.plane.heartbeat("n1", services=(service,))


async def test_the_gateway_shows_what_it_does_and_lets_people_try_a_model(page: Page, served: Served) -> None:
    async with Engine(llama) as engine:
        await serve_tiny(served, engine)
        await to(page, "Gateway")
        await expect(page.get_by_text("Nothing was asked yet.")).to_be_visible()
        await page.get_by_label("Say something").fill("Say hello.")
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator(".talk .assistant")).to_contain_text("".join(TOKENS).strip())
        await expect(page.locator(".chat [role=status]")).to_contain_text("first token after")
        answers = page.locator("section", has_text="Answers by model")
        await expect(answers.locator("tr", has_text="tiny").locator("td").first).to_have_text("1")
        newest = page.get_by_label("The newest requests")
        await newest.get_by_role("button").first.click()
        await expect(newest).to_contain_text("n1/llama: no other worker could serve it")
        await expect(newest).to_contain_text("ended with 200")
        await expect(page.get_by_label("Waiting for a free slot")).to_contain_text("Nobody waits.")
        assert await violations(page) == []
        await page.screenshot(path=ARTIFACTS / "monitor-gateway.png")


async def test_the_gateway_shows_answers_that_are_kept_for_callers_who_come_back(page: Page, served: Served) -> None:
    async with Engine(llama) as engine:
        await serve_tiny(served, engine)
        await to(page, "Gateway")
        kept = page.get_by_label("Resumable answers")
        await expect(kept).to_have_count(0)
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        headers = {"X-Muster-Resumable": "60"}
        async with served.client.post("/v1/chat/completions", json=body, headers=headers) as answer:
            stream_id = answer.headers["X-Muster-Stream"]
            await answer.read()
        async with served.client.get(f"/v1/streams/{stream_id}") as again:
            await again.read()
        for words in ("come now 0", "kept since the start 0.0 MB1", "callers who came back1"):
            await expect(kept).to_contain_text(words)
        newest = page.get_by_label("The newest requests")
        await newest.get_by_role("button").first.click()
        await expect(newest).to_contain_text(f"Kept as {stream_id} for 1 m 00 s without a reader.")
        assert await violations(page) == []


async def test_the_gateway_shows_who_waits_for_a_slot(page: Page, served: Served) -> None:
    async with Engine(hang) as engine:
        await serve_tiny(served, engine, slots=1)
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
        asked = [asyncio.create_task(served.client.post("/v1/chat/completions", json=body)) for _ in range(3)]
        try:
            await to(page, "Gateway")
            line = page.get_by_label("Waiting for a free slot").locator("tr", has_text="tiny")
            await expect(line.locator("td").first).to_have_text("2")
            await expect(line).to_contain_text("anybody 2")
            assert await violations(page) == []
        finally:
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)


async def test_the_gateway_shows_whom_it_keeps_from_requests_and_why(page: Page, served: Served) -> None:
    async with Engine(refuse) as engine:
        await serve_tiny(served, engine)
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
        for _ in range(30):
            async with served.client.post("/v1/chat/completions", json=body) as answer:
                assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
            async with served.client.get("/api/v1/gateway") as told:
                if (await told.json())["quarantined"]:
                    break
        await to(page, "Gateway")
        kept_from = page.locator("section", has_text="Quarantine").locator("li", has_text="n1/llama")
        await expect(kept_from.first).to_contain_text("503")
        await expect(kept_from.first).to_contain_text("tiny, for ")
        assert await violations(page) == []


async def test_models_in_memory_are_shown_with_who_asked_for_them(page: Page, served: Served) -> None:
    service = Service(
        name="ollama",
        connector="ollama",
        status=ServiceStatus.RUNNING,
        url="http://127.0.0.1:9",
        dialects=(Dialect.OLLAMA,),
        on_demand=True,
        models=(Model(name="tiny", resident=True, memory_mb=900),),
    )
    await served.plane.heartbeat("n1", services=(service,))
    served.plane.models.uses.asked("n1/ollama", "tiny", "ann")
    await to(page, "Models")
    holder = page.locator('[data-holder="n1/ollama"]')
    await expect(holder).to_contain_text("in memory")
    await expect(holder).to_contain_text("for ann")
    await expect(holder.get_by_role("button", name="Unload")).to_be_visible()
    assert await violations(page) == []


async def test_a_node_that_has_a_model_on_disk_and_in_memory_is_listed_once(page: Page, served: Served) -> None:
    here = Service(
        name="llama",
        connector="llamacpp",
        status=ServiceStatus.RUNNING,
        url="http://127.0.0.1:9",
        dialects=(Dialect.OPENAI,),
        models=(Model(name="tiny", resident=True),),
    )
    file = Artifact(name="tiny", size_bytes=98_362_432, pinned=True)
    await served.plane.heartbeat("n1", services=(here,), artifacts=NodeArtifacts(kept=(file,)))
    await to(page, "Models")
    lines = page.locator('[data-model="tiny"] li')
    await expect(lines).to_have_count(1)
    await expect(lines).to_contain_text("n1 on disk, pinned, in memory")


async def test_models_are_shown_with_the_nodes_that_have_them_and_ordered_to_others(page: Page, served: Served) -> None:
    held = Model(name="tiny", resident=True, size_bytes=98_362_432, capabilities=("completion",))
    llama_here = Service(
        name="llama",
        connector="llamacpp",
        status=ServiceStatus.RUNNING,
        url="http://127.0.0.1:9",
        dialects=(Dialect.OPENAI,),
        models=(held,),
    )
    await served.plane.heartbeat("n1", services=(llama_here,))
    await served.plane.heartbeat("n2")
    await to(page, "Models")
    row = page.locator('[data-model="tiny"]')
    for words in ["tiny", "98 MB", "completion", "n1", "in memory"]:
        await expect(row).to_contain_text(words)
    await page.get_by_label("Fetch", exact=True).fill("hf:org/repo/model.gguf")
    await page.get_by_label("Fetch to node").select_option("n2")
    await page.get_by_role("button", name="Fetch", exact=True).click()
    await eventually(lambda: [(c.command, c.node_id) for c in served.plane.commands.newest()] == [("pull_model", "n2")])
    assert await violations(page) == []
    await page.screenshot(path=ARTIFACTS / "monitor-models.png")
