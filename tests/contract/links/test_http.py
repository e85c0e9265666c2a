"""What only a network can do to a link."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from muster.errors import NotFound, Unauthorized, UpstreamFailed, UpstreamTimeout
from muster.links.calls import CALLS
from muster.links.http.agent_side import HttpLink
from muster.links.http.control_side import PREFIX, handle
from muster.wire import ClaimRequest, RegistrationReply
from tests.contract.links.planes import EXCHANGES, NODE, SESSION, WORKER, NotingPlane
from tests.contract.links.served import Served

REGISTRATION = EXCHANGES[0][1]
REGISTERED = RegistrationReply(node_id=NODE, next_heartbeat_ms=2500)
CLAIM = ClaimRequest(session_id=SESSION, worker_id=WORKER, want=1, wait_s=20)


@pytest.fixture
def plane() -> NotingPlane:
    return NotingPlane()


@pytest.fixture
async def served(plane: NotingPlane) -> AsyncIterator[Served]:
    served = Served(plane, plane)
    await served.start()
    yield served
    await served.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def stranger() -> AsyncIterator[Callable[[Answer], Awaitable[str]]]:
    """Serve something that is no control plane; the url is returned."""
    runners = []

    async def start(answer: Answer) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.0)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b'"x"', b"{}", b'{"facts": 3}', b"null"], ids=repr)
async def test_a_malformed_body_is_refused_and_reaches_nobody(
    served: Served, plane: NotingPlane, session: aiohttp.ClientSession, name: str, body: bytes
) -> None:
    async with session.post(served.url + PREFIX + name, data=body) as response:
        assert response.status == 400
        assert (await response.json(content_type=None))["code"] == "invalid_input"
    assert plane.heard == []


async def test_the_field_that_does_not_fit_is_named(served: Served, session: aiohttp.ClientSession) -> None:
    body = {"facts": {"node_id": "a", "cpu_cores": "many"}, "boot_id": "b", "heartbeat_interval_s": 1}
    async with session.post(served.url + PREFIX + "register", json=body) as response:
        assert (await response.json(content_type=None))["field"] == "facts.cpu_cores"


async def test_fields_of_a_newer_agent_are_ignored(
    served: Served, plane: NotingPlane, session: aiohttp.ClientSession
) -> None:
    plane.reply = REGISTERED
    body = {
        "facts": {"node_id": "gpu-1", "favourite_colour": "green"},
        "boot_id": "boot-a",
        "heartbeat_interval_s": 2.5,
        "mood": "sunny",
    }
    async with session.post(served.url + PREFIX + "register", json=body) as response:
        assert response.status == 200
    assert plane.heard[0].facts.node_id == "gpu-1"


async def test_fields_of_a_newer_control_plane_are_ignored(
    session: aiohttp.ClientSession, stranger: Callable[[Answer], Awaitable[str]]
) -> None:
    async def newer(_: web.Request) -> web.Response:
        return web.json_response({"node_id": "gpu-1", "next_heartbeat_ms": 2500, "mood": "sunny"})

    assert await HttpLink(await stranger(newer), session).register(REGISTRATION) == REGISTERED


async def test_an_unknown_call_is_not_found(plane: NotingPlane) -> None:
    with pytest.raises(NotFound, match="no call 'dance'"):
        await handle("dance", b"{}", plane, plane)


async def test_a_server_that_is_gone_is_a_failure_and_one_that_is_back_answers(
    served: Served, plane: NotingPlane, session: aiohttp.ClientSession
) -> None:
    plane.reply = REGISTERED
    link = HttpLink(served.url + "/", session)
    assert await link.register(REGISTRATION) == REGISTERED
    await served.stop()
    with pytest.raises(UpstreamFailed, match="cannot be reached"):
        await link.register(REGISTRATION)
    await served.start()
    assert await link.register(REGISTRATION) == REGISTERED


async def test_a_server_that_dies_during_a_call_is_a_failure(
    session: aiohttp.ClientSession, stranger: Callable[[Answer], Awaitable[str]]
) -> None:
    async def die(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    with pytest.raises(UpstreamFailed, match="cannot be reached"):
        await HttpLink(await stranger(die), session).claim(CLAIM)


async def test_a_connection_that_was_closed_as_it_was_taken_is_not_a_failure(
    session: aiohttp.ClientSession, stranger: Callable[[Answer], Awaitable[str]]
) -> None:
    seen: list[bytes] = []

    async def die_once(request: web.Request) -> web.Response:
        seen.append(await request.read())
        assert request.transport is not None
        if len(seen) == 1:
            request.transport.abort()
        return web.json_response({"node_id": "gpu-1", "next_heartbeat_ms": 2500})

    assert await HttpLink(await stranger(die_once), session).register(REGISTRATION) == REGISTERED
    assert seen[0] == seen[1]


async def test_a_slow_server_is_given_up_at_the_deadline(
    served: Served, plane: NotingPlane, session: aiohttp.ClientSession
) -> None:
    plane.hold = asyncio.Event().wait
    with pytest.raises(UpstreamTimeout, match=r"within 0\.05 s"):
        await HttpLink(served.url, session, timeout_s=0.05).register(REGISTRATION)


async def test_a_claim_may_take_as_long_as_it_asked_to_wait(
    served: Served, plane: NotingPlane, session: aiohttp.ClientSession
) -> None:
    link = HttpLink(served.url, session, timeout_s=0.05)
    plane.hold = asyncio.Event().wait
    with pytest.raises(UpstreamTimeout, match=r"within 0\.1 s"):
        await link.claim(ClaimRequest(session_id=SESSION, worker_id=WORKER, want=1, wait_s=0.05))


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, b"<html>who are you?</html>", Unauthorized),
        (404, b"<html>nothing here</html>", UpstreamFailed),
        (302, b"", UpstreamFailed),
        (502, b"bad gateway", UpstreamFailed),
        (500, json.dumps({"code": "internal_error", "message": "oops"}).encode(), UpstreamFailed),
        (503, b"[]", UpstreamFailed),
        (503, b'{"code": ["x"], "message": "y"}', UpstreamFailed),
        (200, b"<html>a captive portal</html>", UpstreamFailed),
        (200, b'{"node_id": 3}', UpstreamFailed),
        (204, b"", UpstreamFailed),
    ],
)
async def test_an_answer_that_is_not_a_control_planes_is_told_as_it_is(
    session: aiohttp.ClientSession,
    stranger: Callable[[Answer], Awaitable[str]],
    status: int,
    body: bytes,
    expected: type[Exception],
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body or None)

    with pytest.raises(expected) as caught:
        await HttpLink(await stranger(answer), session).register(REGISTRATION)
    assert type(caught.value) is expected


async def test_an_answer_without_end_is_not_kept(
    session: aiohttp.ClientSession,
    stranger: Callable[[Answer], Awaitable[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("muster.links.http.agent_side._REPLY_BYTES_MAX", 1024)

    async def flood(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 4096)

    with pytest.raises(UpstreamFailed, match="more than 1024 bytes"):
        await HttpLink(await stranger(flood), session).register(REGISTRATION)


async def test_the_token_goes_with_every_call_and_nothing_without_one(
    session: aiohttp.ClientSession, stranger: Callable[[Answer], Awaitable[str]]
) -> None:
    seen: list[Any] = []

    async def note(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=204)

    url = await stranger(note)
    await HttpLink(url, session, token="secret").deregister(EXCHANGES[3][1])
    await HttpLink(url, session).deregister(EXCHANGES[3][1])
    assert seen == ["Bearer secret", None]
