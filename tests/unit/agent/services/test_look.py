import asyncio
import socket
from typing import Any

import psutil
import pytest

from muster.agent.services import sockets
from muster.agent.services.look import LOOK_DEADLINE_S, look
from muster.domain.service import Service, ServiceStatus
from muster.errors import UpstreamFailed, UpstreamTimeout
from tests.unit.agent.connectors import FakeConnector
from tests.unit.agent.virtual_time import LoopClock, in_virtual_time

URL = "http://127.0.0.1:9000"


class Odd(FakeConnector):
    def __init__(self, answer: Any) -> None:
        super().__init__("odd", needs_service=True)
        self._answer = answer

    async def probe(self, url: str) -> Service:
        if isinstance(self._answer, Exception):
            raise self._answer
        return Service(name="odd", connector="odd", status=self._answer)


class Hanging(FakeConnector):
    async def probe(self, url: str) -> Service:
        await asyncio.Event().wait()
        raise AssertionError


@in_virtual_time
async def test_a_service_that_runs_is_returned() -> None:
    assert (await look(Odd(ServiceStatus.RUNNING), URL)).name == "odd"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ServiceStatus.STARTING, f"{URL} says that it is starting"),
        (UpstreamFailed("silent"), "silent"),
        (ZeroDivisionError("a bug"), f"odd cannot look at {URL}: ZeroDivisionError: a bug"),
    ],
)
def test_a_service_that_does_not_run_is_a_failure_with_a_reason(answer: Any, reason: str) -> None:
    @in_virtual_time
    async def run() -> None:
        with pytest.raises(UpstreamFailed) as caught:
            await look(Odd(answer), URL)
        assert caught.value.message == reason

    run()


@in_virtual_time
async def test_a_connector_that_hangs_is_given_up() -> None:
    started_s = LoopClock().monotonic_s()
    with pytest.raises(UpstreamTimeout):
        await look(Hanging(), URL)
    assert LoopClock().monotonic_s() - started_s == pytest.approx(LOOK_DEADLINE_S)


def test_a_holder_that_this_user_may_not_see_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: str) -> list[Any]:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", forbidden)
    with socket.create_server(("127.0.0.1", 0)) as server:
        holder = sockets.holder_of("127.0.0.1", server.getsockname()[1])
    assert holder == "somebody unseen (Address already in use)"
