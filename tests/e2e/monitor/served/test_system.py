"""The page of what the fleet stands on, with a real store and a real broker, each of which goes away and comes back."""

import random
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from muster.links.amqp.address import broker_address
from muster.links.amqp.control_side import AmqpIngest
from muster.links.amqp.management import Management, management_url
from muster.stores.valkey import ValkeyStore
from muster.system import SystemClock
from tests.e2e.monitor.axe import violations
from tests.e2e.monitor.conftest import ARTIFACTS, Watched
from tests.integration.api.conftest import Served, serving
from tests.rabbitmq import PASSWORD, VHOST, RabbitMq
from tests.relay import Relay
from tests.valkey_server import ValkeyServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

SOON_MS = 15_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    broker = RabbitMq(tmp_path_factory.mktemp("broker"), management=True)
    try:
        yield broker.start()
    finally:
        broker.remove()


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    server = ValkeyServer("valkey", "--maxmemory", "256mb")
    server.start()
    yield server
    server.remove()


@pytest_asyncio.fixture(loop_scope="session")
async def served(valkey: ValkeyServer) -> AsyncIterator[Served]:
    store = await ValkeyStore.open(valkey.url, call_timeout_s=0.5)
    async with serving(probe=store.probe) as served:
        yield served
    await store.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, served: Served) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport={"width": 1280, "height": 1000})
    watched = Watched(await context.new_page())
    await watched.page.goto(f"{served.url}/#/system")
    await expect(watched.page.locator(".connection")).to_have_text("live")
    yield watched.page
    surprises = watched.surprises
    await context.close()
    assert not surprises


async def test_a_broker_that_goes_away_is_told_within_seconds_and_its_return_as_well(
    page: Page, served: Served, broker: RabbitMq
) -> None:
    panel = page.locator('[data-part="broker"]')
    await expect(panel).to_contain_text("None is named")
    async with Relay(broker.port) as relay:
        address = broker_address(broker.url.replace(str(broker.port), str(relay.port)))
        ingest = AmqpIngest(
            address,
            served.plane.ingest,
            served.plane.fleet.book,
            served.plane.recorder.emit,
            SystemClock(),
            random.Random(3),
            management=Management(
                management_url(address, f"http://127.0.0.1:{broker.management_port}"), VHOST, SystemClock()
            ),
            backoff_s=0.1,
        )
        await ingest.start()
        served.plane.broker = ingest
        await served.plane.heartbeat("n1")
        await expect(panel).to_contain_text("connected", timeout=SOON_MS)
        await expect(panel).to_contain_text("RabbitMQ 3.")
        await expect(panel.locator('[data-queue="heartbeat.control-plane"] td').nth(1)).to_have_text("1")
        row = panel.locator('[data-managed="heartbeat.control-plane"]')
        await expect(row.locator("td").nth(2)).to_have_text("1", timeout=SOON_MS)  # consumers
        await expect(panel.locator("[data-managed]")).to_have_count(4)
        assert PASSWORD not in await page.content()
        await page.screenshot(path=ARTIFACTS / "monitor-system.png")

        relay.refuse()
        await expect(panel.get_by_role("alert")).to_contain_text(
            "see whether RABBITMQ_URL names the broker", timeout=SOON_MS
        )
        await expect(panel).to_contain_text("away")
        await page.screenshot(path=ARTIFACTS / "monitor-system-broker-away.png")
        assert await violations(page) == []

        await relay.accept()
        await expect(panel.get_by_role("alert")).to_have_count(0, timeout=SOON_MS)
        await expect(panel).to_contain_text("connected anew")
        await ingest.stop()


async def test_a_store_that_goes_away_is_told_with_what_to_do_and_comes_back(page: Page, valkey: ValkeyServer) -> None:
    panel = page.locator('[data-part="store"]')
    for words in ("valkey", "answers", "256 MB", "not appended to a file", "primary"):
        await expect(panel).to_contain_text(words)
    valkey.kill()
    await expect(panel.get_by_role("alert")).to_contain_text("did not answer", timeout=SOON_MS)
    await expect(panel).to_contain_text("it is started again by itself")
    assert await violations(page) == []
    valkey.start()
    await expect(panel.get_by_role("alert")).to_have_count(0, timeout=SOON_MS)
    await expect(panel).to_contain_text("answers")


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1280), ("light", 400)])
async def test_it_can_be_read_in_the_dark_and_on_a_narrow_screen(
    page: Page, served: Served, scheme: str, width: int
) -> None:
    await served.plane.heartbeat("n1")
    await served.plane.store.leases.take("leader", "plane-1", 60.0)
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.set_viewport_size({"width": width, "height": 900})
    await expect(page.locator('[data-part="links"]')).to_contain_text("HTTP")
    await expect(page.locator('[data-part="planes"]')).to_contain_text("leads", timeout=SOON_MS)
    assert await violations(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out sideways"
    await page.screenshot(path=ARTIFACTS / f"monitor-system-{scheme}-{width}.png", full_page=True)
