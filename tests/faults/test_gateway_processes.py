"""The gateway in several processes on one port: one for whoever looks, and none of them needed by the others."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.integration.gateway.engine import Asked, Engine, llama, stream_of
from tests.muster_process import ControlPlane
from tests.waiting import eventually, eventually_sync

BACK_S = 60.0
TOKEN = "an-admins-token"
MANY = 12  # connections, of which each of two processes gets some
CHAT = "/v1/chat/completions"
ENV = {
    "MUSTER_GATEWAY_WORKERS": "2",
    "MUSTER_TOKEN": TOKEN,
    "MUSTER_STOP_TIMEOUT_S": "5",
    "MUSTER_JOB_SWEEP_S": "0.1",
}


def started(folder: Path) -> ControlPlane:
    plane = ControlPlane(folder, env=ENV)
    plane.start()
    eventually_sync(lambda: beside(plane), BACK_S)
    return plane


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = started(tmp_path_factory.mktemp("plane"))
    pids = [plane.pid, beside(plane)]
    yield plane
    assert plane.stop() == 0, plane.log[-3000:]
    assert not any(psutil.pid_exists(pid) for pid in pids), "nothing is left of it"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = started(tmp_path)
    yield plane
    plane.kill()


def beside(plane: ControlPlane) -> int:
    """Return the pid of the other process; 0 while it does not serve."""
    (process,) = plane.get("/api/v1/system")["gateway_processes"]
    return int(process["pid"] or 0)


class Callers:
    """Each call on a connection of its own, so that the kernel deals them out."""

    def __init__(self, plane: ControlPlane, session: aiohttp.ClientSession) -> None:
        self.plane = plane
        self._session = session

    async def get(self, path: str) -> Any:
        async with self._session.get(self.plane.url + path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def text(self, path: str) -> str:
        async with self._session.get(self.plane.url + path, headers={"Accept": "text/html"}) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()

    async def post(self, path: str, body: Any, token: str = TOKEN) -> aiohttp.ClientResponse:
        headers = {"Authorization": f"Bearer {token}"}
        answer = await self._session.post(self.plane.url + path, json=body, headers=headers)
        await answer.read()
        return answer

    async def chat(self, model: str, token: str = TOKEN) -> aiohttp.ClientResponse:
        return await self.post(CHAT, {"model": model, "messages": [{"role": "user", "content": "hi"}]}, token)

    async def stream(self, model: str) -> aiohttp.ClientResponse:
        """Return once the first piece is there."""
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        answer = await self._session.post(self.plane.url + CHAT, json=body)
        assert answer.status == 200, await answer.text()
        assert await answer.content.readline()
        return answer

    async def metric(self, line: str) -> float:
        lines = (await self.text("/metrics")).splitlines()
        return next((float(one.split()[-1]) for one in lines if one.startswith(f"{line} ")), 0.0)

    async def processes(self) -> list[dict[str, Any]]:
        return list((await self.get("/api/v1/system"))["gateway_processes"])

    def socket(self, path: str) -> Any:
        return self._session.ws_connect(self.plane.url + path)

    def events(self, path: str) -> Any:
        return self._session.get(self.plane.url + path)


@asynccontextmanager
async def served(plane: ControlPlane, engine: Engine, model: str, slots: int | None = None) -> AsyncIterator[Callers]:
    """Have a node with this model in the fleet, known to both processes."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with engine, aiohttp.ClientSession(connector=connector, headers=headers) as session:
        callers = Callers(plane, session)
        await beat(callers, engine, model, slots)
        for _ in range(MANY):
            await eventually(lambda: offers(callers, model), BACK_S)
        yield callers


async def beat(callers: Callers, engine: Engine, model: str, slots: int | None = None) -> None:
    service = {
        "name": "llm",
        "connector": "openai",
        "url": engine.url,
        "dialects": ["openai"],
        "models": [{"name": model}],
        "status": "running",
        "slots": slots,
    }
    facts = {"node_id": f"n-{model}"}
    beat = {"facts": facts, "boot_id": "b", "seq": 1, "heartbeat_interval_s": 600.0, "services": [service]}
    answer = await callers.post("/api/agent/heartbeat", beat)
    assert answer.status == 200, await answer.text()


async def offers(callers: Callers, model: str) -> bool:
    return model in [one["id"] for one in (await callers.get("/v1/models"))["data"]]


class Slow:
    """An engine that says one token and waits for leave to say the rest."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()

    async def __call__(self, asked: Asked) -> None:
        if not asked.json.get("stream"):
            await llama(asked)
            return
        asked.head(content_type="text/event-stream")
        first, *rest = stream_of(asked)
        asked.event(first)
        await self.leave.wait()
        for content in rest:
            asked.event(content)
        asked.last_chunk()


async def test_everything_is_served_whichever_process_takes_the_connection(shared: ControlPlane) -> None:
    async with served(shared, Engine(), "whole") as callers:
        before = await callers.metric(f'muster_gateway_requests_total{{path="{CHAT}",status="200"}}')
        answers = [await callers.chat("whole") for _ in range(MANY)]
        assert {answer.status for answer in answers} == {200}

        for _ in range(MANY):
            assert "<html" in await callers.text("/")
            assert "n-whole" in [node["node_id"] for node in await callers.get("/api/v1/nodes")]
            async with callers.events("/api/events/monitor") as stream:
                assert await stream.content.readline()
            async with callers.socket("/ws/monitor/m1") as socket:
                assert json.loads(await socket.receive_str())
        for seq in range(2, MANY):
            beat = {"facts": {"node_id": "n-linked"}, "boot_id": "b", "seq": seq, "heartbeat_interval_s": 600.0}
            assert (await callers.post("/api/agent/heartbeat", beat)).status == 200

        async def all_counted() -> bool:
            return await callers.metric(f'muster_gateway_requests_total{{path="{CHAT}",status="200"}}') == before + MANY

        await eventually(all_counted)
        assert (await callers.get("/api/v1/gateway"))["stats"]["requests_total"] >= MANY
        for answer in answers:
            told = await callers.get(f"/api/v1/requests/{answer.headers['X-Correlation-Id']}")
            assert told["attempts"][0]["worker"] == "n-whole/llm"


COST = 1_000_000  # tokens of one answer: of a minute's 60 it is missing for eleven days


async def dear(asked: Asked) -> None:
    asked.reply({"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": COST, "total_tokens": COST}})


async def test_a_limit_per_minute_holds_over_all_processes_and_for_one_that_starts_anew(shared: ControlPlane) -> None:
    async with served(shared, Engine(dear), "dear") as callers:
        wanted = {"name": "limited", "role": "client", "allowance": {"tokens_per_min": 60}}
        token = (await (await callers.post("/api/v1/tokens", wanted)).json())["token"]
        let_in = [0]

        async def waits_s() -> list[float]:
            """Return for how long each of many connections is refused."""
            answers = [await callers.chat("dear", token) for _ in range(MANY)]
            let_in[0] += sum(answer.status == 200 for answer in answers)
            return [float(answer.headers.get("Retry-After", 0)) for answer in answers]

        async def all_know_of(answers: int) -> bool:
            return min(await waits_s()) > answers * COST - 10_000

        await eventually(lambda: all_know_of(1), BACK_S)
        await eventually(lambda: all_know_of(let_in[0]))
        assert let_in[0] <= 2, "each process may let in one before it hears of the other"

        known, pid = let_in[0], beside(shared)
        os.kill(pid, 9)
        await eventually(lambda: beside(shared) not in {0, pid}, BACK_S)
        await eventually(lambda: all_know_of(known), BACK_S)


async def test_a_process_that_is_killed_takes_only_its_own_streams_along(own: ControlPlane) -> None:
    slow = Slow()
    async with served(own, Engine(slow), "slow") as callers, AsyncExitStack() as open_streams:
        assert (await callers.chat("slow")).status == 200
        streams = [await callers.stream("slow") for _ in range(MANY)]
        for stream in streams:
            open_streams.callback(stream.close)

        async def all_seen() -> bool:
            return await callers.metric('muster_gateway_in_flight{worker="n-slow/llm"}') == MANY

        await eventually(all_seen)
        pid = beside(own)
        os.kill(pid, 9)

        slow.leave.set()
        ends = [await rest_of(stream) for stream in streams]
        went_on = sum(end.endswith(b"data: [DONE]\n\n") for end in ends)
        assert 0 < went_on < MANY, "those of the other go on; all on one is a chance of one in two thousand"

        async def another() -> bool:
            (process,) = await callers.processes()
            return process["pid"] not in {None, pid} and process["restarts"] == 1

        await eventually(another, BACK_S)
        for _ in range(MANY):
            assert (await callers.chat("slow")).status == 200

        async def all_counted() -> bool:
            done = await callers.metric(f'muster_gateway_requests_total{{path="{CHAT}",status="200"}}')
            return done >= 1 + went_on + MANY

        await eventually(all_counted)
        pid = beside(own)
        own.kill()
        await eventually(lambda: not psutil.pid_exists(pid))


async def rest_of(stream: aiohttp.ClientResponse) -> bytes:
    with suppress(aiohttp.ClientError):
        return await stream.content.read()
    return b""


async def test_all_processes_let_streams_end_when_they_are_told_to_stop(shared: ControlPlane) -> None:
    slow = Slow()
    async with served(shared, Engine(slow), "slow") as callers:
        streams = [await callers.stream("slow") for _ in range(MANY)]
        assert shared.process is not None
        shared.process.terminate()

        async def takes_no_more() -> bool:
            try:
                await callers.text("/health")
            except aiohttp.ClientConnectorError:
                return True
            return False

        await eventually(takes_no_more)
        slow.leave.set()
        ends = [await rest_of(stream) for stream in streams]
        assert all(end.endswith(b"data: [DONE]\n\n") for end in ends)
        assert await asyncio.to_thread(shared.wait) == 0
