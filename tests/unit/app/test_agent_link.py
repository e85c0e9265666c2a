import aiohttp
import pytest

from muster.app.agent_link import grpc_url, link_kind, open_link
from muster.errors import SetupError, UpstreamFailed
from muster.ids import NodeId, SessionId, WorkerId
from muster.settings import Settings
from muster.wire import ClaimRequest, Deregistration

DEFAULT = Settings().control_plane
BROKER = "amqp://user:password@127.0.0.1:1"


@pytest.mark.parametrize(
    ("settings", "control_plane", "kind"),
    [
        (Settings(), DEFAULT, "http"),
        (Settings(), "https://plane", "http"),
        (Settings(), "grpc://plane", "grpc"),
        (Settings(), BROKER, "amqp"),
        (Settings(link="grpc"), "http://plane:8090", "grpc"),
        (Settings(rabbitmq_url=BROKER), DEFAULT, "amqp"),
        (Settings(rabbitmq_url=BROKER), "http://plane:8090", "http"),
        (Settings(rabbitmq_url=BROKER, link="amqp"), "http://plane:8090", "amqp"),
        (Settings(rabbitmq_url=BROKER, link="http"), DEFAULT, "http"),
    ],
)
def test_the_link_is_what_is_set_or_what_the_urls_say(settings: Settings, control_plane: str, kind: str) -> None:
    assert link_kind(settings, control_plane) == kind


def test_an_unknown_scheme_is_told_with_those_that_there_are() -> None:
    with pytest.raises(SetupError) as caught:
        link_kind(Settings(), "ftp://plane")
    assert "amqp://" in caught.value.next_step


def test_http_leads_to_no_other_port() -> None:
    with pytest.raises(SetupError, match="grpc://plane"):
        link_kind(Settings(link="http"), "grpc://plane")


@pytest.mark.parametrize(
    ("control_plane", "url"),
    [
        ("grpc://plane:50099", "grpc://plane:50099"),
        ("http://plane:8090", "grpc://plane"),
        ("https://plane", "grpcs://plane"),
        ("http://[::1]:8090", "grpc://[::1]"),
    ],
)
def test_grpc_is_beside_the_http_port_that_was_named(control_plane: str, url: str) -> None:
    assert grpc_url(control_plane) == url


async def test_a_link_over_a_broker_asks_the_control_plane_itself_for_jobs() -> None:
    settings = Settings(rabbitmq_url=BROKER, link="amqp", data_dir="/nonexistent")
    claim = ClaimRequest(session_id=SessionId("s"), worker_id=WorkerId("gpu-1-worker-0"), want=1)
    goodbye = Deregistration(node_id=NodeId("gpu-1"), boot_id="boot-a")
    async with aiohttp.ClientSession() as session:
        link = open_link(settings, NodeId("gpu-1"), "http://127.0.0.1:2", session, 10.0, lambda: None)
        await link.start()
        with pytest.raises(UpstreamFailed, match=r"http://127\.0\.0\.1:2/"):
            await link.claim(claim)
        with pytest.raises(UpstreamFailed, match=r"amqp://user:\*\*\*@127\.0\.0\.1:1/agents"):
            await link.deregister(goodbye)
        await link.stop()
