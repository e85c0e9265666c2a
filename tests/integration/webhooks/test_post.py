"""Posting to real receivers: deadlines, redirects, and networks that are ours."""

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from muster.control.webhooks.post import WebhookPost
from tests.integration.webhooks.receiver import Receiver, receiving
from tests.muster_process import free_port

HEADERS = {"webhook-id": "msg-1"}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


@pytest.fixture
async def post() -> AsyncIterator[WebhookPost]:
    made = WebhookPost(timeout_s=0.5, private=True)
    await made.start()
    yield made
    await made.stop()


async def test_a_body_arrives_as_it_is(post: WebhookPost, receiver: Receiver) -> None:
    answer = await post.send(receiver.url, HEADERS, b'{"a":1}')
    assert (answer.status, answer.error) == (204, "")
    assert receiver.got == [{"a": 1}]


async def test_what_it_says_is_told_in_part(post: WebhookPost, receiver: Receiver) -> None:
    receiver.status, receiver.headers = 503, {"Retry-After": "7"}
    answer = await post.send(receiver.url, HEADERS, b"{}")
    assert (answer.status, answer.excerpt, answer.retry_after_s) == (503, "what it says", 7.0)


async def test_redirects_are_not_followed(post: WebhookPost, receiver: Receiver) -> None:
    receiver.status, receiver.headers = 307, {"Location": receiver.url}
    assert (await post.send(receiver.url, HEADERS, b"{}")).status == 307
    assert len(receiver.got) == 1


async def test_a_receiver_that_says_nothing_is_given_up_at_the_deadline(post: WebhookPost, receiver: Receiver) -> None:
    receiver.open.clear()
    answer = await post.send(receiver.url, HEADERS, b"{}")
    assert (answer.status, answer.error) == (0, "no answer within 0.5 s")
    assert answer.took_ms >= 450


async def test_nobody_there_is_told(post: WebhookPost) -> None:
    answer = await post.send(f"http://127.0.0.1:{free_port()}/in", HEADERS, b"{}")
    assert answer.status == 0
    assert "127.0.0.1" in answer.error


async def test_a_name_that_leads_into_our_networks_is_found_out_when_it_is_connected_to(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = WebhookPost(timeout_s=2.0, private=False)
    await post.start()
    port = receiver.url.split(":")[2].removesuffix("/in")

    def resolved(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(port)))]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    rebound = await post.send(f"http://receiver.example:{port}/in", HEADERS, b"{}")
    plain = await post.send(receiver.url, HEADERS, b"{}")
    await post.stop()

    assert "webhook_private_addresses" in rebound.error
    assert "webhook_private_addresses" in plain.error
    assert receiver.got == []


async def test_before_the_start_and_after_the_stop_nothing_is_sent() -> None:
    post = WebhookPost(timeout_s=1.0, private=True)
    assert "stopped" in (await post.send("http://127.0.0.1:1/in", HEADERS, b"{}")).error
