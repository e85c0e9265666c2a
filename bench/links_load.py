"""A thousand agents in one process, as thin as they can be: what the benchmark of the links sets on a control plane.

python -m bench.links_load LINK URL AGENTS ; it reads orders from standard input and answers each with a line of JSON:
`beat SECONDS` every agent again and again as soon as it is answered, `pace INTERVAL_S SECONDS` each once per interval,
`drop COUNT` these are gone without a word while the others go on, `fill COUNT` so many without waiting for anybody.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiormq
import grpc
import uvloop

from muster.domain.gpu import Gpu
from muster.domain.model import Model
from muster.domain.node import NodeFacts, Resources
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.ids import NodeId, worker_id
from muster.links.amqp.messages import heartbeat_body
from muster.links.amqp.topology import HEARTBEAT
from muster.links.grpc.agent_control_pb2 import Call
from muster.links.grpc.service import CONNECT, CONNECTION_OPTIONS
from muster.wire import Heartbeat, encode

_FIRST_SEQ = 10**11  # of as many digits as all that follow, so that messages keep their length
_OPEN_AT_A_TIME = 20
_GPUS = 8


def heartbeat(node: str, interval_s: float) -> Heartbeat:
    """Say what a large node says: eight GPUs, a worker on each, a server with two models; about 2 KB."""
    node_id = NodeId(node)
    models = tuple(Model(name=name, resident=True, context_length=8192) for name in ("llama3.1:8b", "qwen2.5:14b"))
    return Heartbeat(
        facts=NodeFacts(node_id=node_id, node_type="gpu-worker", hostname=node, region="eu", labels={"zone": "a"}),
        boot_id=f"{node}-boot",
        seq=_FIRST_SEQ,
        heartbeat_interval_s=interval_s,
        resources=Resources(memory_total_mb=515_000, memory_used_mb=101_000, cpu_percent=12.5),
        gpus=tuple(
            Gpu(index=index, name="RTX 4090", memory_total_mb=24_564, memory_used_mb=8_000, utilization_percent=50.0)
            for index in range(_GPUS)
        ),
        workers=tuple(
            Worker(worker_id=worker_id(node_id, index), index=index, status=WorkerStatus.IDLE, gpu_index=index)
            for index in range(_GPUS)
        ),
        services=(
            Service(
                name="llama",
                connector="openai",
                status=ServiceStatus.RUNNING,
                url="http://127.0.0.1:8000",
                dialects=(Dialect.OPENAI,),
                models=models,
                slots=4,
            ),
        ),
    )


class Template:
    """A message made once; only its number changes."""

    def __init__(self, body: bytes) -> None:
        self._head, number, self._tail = body.partition(str(_FIRST_SEQ).encode())
        assert number, "the message has no seq"
        self._seq = _FIRST_SEQ

    def next(self) -> bytes:
        self._seq += 1
        return b"%s%d%s" % (self._head, self._seq, self._tail)


class Agent(Protocol):
    async def open(self) -> None: ...
    async def beat(self) -> None: ...
    def vanish(self) -> None: ...


class HttpAgent(asyncio.Protocol):
    """One kept-alive connection, one request at a time."""

    def __init__(self, url: str, message: Heartbeat) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0
        body = encode(message)
        head = f"POST /api/agent/heartbeat HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        self._request = Template(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self._transport: Any = None
        self._received = b""
        self._answer: asyncio.Future[None] | None = None

    async def open(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, self._host, self._port)

    async def beat(self) -> None:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(self._request.next())
        await self._answer

    def vanish(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"}") and self._answer is not None:
            answer, self._received = self._received, b""
            if answer.startswith(b"HTTP/1.1 200"):
                self._answer.set_result(None)
            else:
                self._answer.set_exception(RuntimeError(answer.decode()))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("closed by the control plane"))


class GrpcAgent:
    """A channel and a stream of its own; frames are bytes, so that nothing is made of them here."""

    def __init__(self, url: str, message: Heartbeat) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), *CONNECTION_OPTIONS]
        self._channel = grpc.aio.insecure_channel(urlsplit(url).netloc, options)
        self._frame = Template(Call(id=1, name="heartbeat", body=encode(message)).SerializeToString())
        self._stream: Any = None

    async def open(self) -> None:
        self._stream = self._channel.stream_stream(CONNECT, request_serializer=None, response_deserializer=None)()
        await self._stream.initial_metadata()

    async def beat(self) -> None:
        await self._stream.write(self._frame.next())
        assert b"next_heartbeat_ms" in await self._stream.read()

    def vanish(self) -> None:
        self._stream.cancel()


class AmqpAgent:
    """Publishes over a channel that it shares: a broker's connections are no load of the control plane."""

    channel: aiormq.abc.AbstractChannel

    def __init__(self, _: str, message: Heartbeat) -> None:
        self._body = Template(heartbeat_body(message, time.time_ns() // 1_000_000))

    async def open(self) -> None:
        """Find the channel open."""

    async def beat(self) -> None:
        await self.channel.basic_publish(self._body.next(), exchange=HEARTBEAT)

    def vanish(self) -> None:
        """Say nothing any more."""


KINDS: dict[str, Callable[[str, Heartbeat], Agent]] = {"http": HttpAgent, "grpc": GrpcAgent, "amqp": AmqpAgent}


class Load:
    def __init__(self, agents: list[Agent]) -> None:
        self._agents = agents
        self._pacing: list[asyncio.Task[None]] = []
        self._beats = 0

    async def open(self) -> None:
        for at in range(0, len(self._agents), _OPEN_AT_A_TIME):
            batch = self._agents[at : at + _OPEN_AT_A_TIME]
            await asyncio.gather(*(agent.open() for agent in batch))
            await asyncio.gather(*(agent.beat() for agent in batch))

    async def beat(self, seconds: float) -> dict[str, float]:
        """Measure the middle: the first and the last answers are not those of a full house."""
        end_s = time.monotonic() + seconds
        counts = await asyncio.gather(*(self._beat_until(agent, end_s) for agent in self._agents))
        return {"beats": sum(counts), "seconds": seconds + time.monotonic() - end_s}

    async def _beat_until(self, agent: Agent, end_s: float) -> int:
        count = 0
        while time.monotonic() < end_s:
            await agent.beat()
            count += 1
        return count

    async def pace(self, interval_s: float, seconds: float) -> dict[str, float]:
        """Go on with it until the end, or until another order."""
        if not self._pacing:
            step_s = interval_s / len(self._agents)
            self._pacing = [
                asyncio.create_task(self._keep_pace(agent, number * step_s, interval_s))
                for number, agent in enumerate(self._agents)
            ]
        before, began_s = self._beats, time.monotonic()
        await asyncio.sleep(seconds)
        return {"beats": self._beats - before, "seconds": time.monotonic() - began_s}

    async def _keep_pace(self, agent: Agent, first_s: float, interval_s: float) -> None:
        due_s = time.monotonic() + first_s
        while True:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await agent.beat()
            self._beats += 1
            due_s += interval_s

    async def drop(self, count: int) -> dict[str, float]:
        for task, agent in zip(self._pacing[:count], self._agents[:count], strict=True):
            task.cancel()
            agent.vanish()
        return {"at_s": time.monotonic()}

    async def fill(self, count: int) -> dict[str, float]:
        for number in range(count):
            await self._agents[number % len(self._agents)].beat()
        return {"beats": count}


async def main(kind: str, url: str, agents: int, interval_s: float) -> None:
    if kind == "amqp":
        connection = await aiormq.connect(url)
        AmqpAgent.channel = await connection.channel(publisher_confirms=False)
    load = Load([KINDS[kind](url, heartbeat(f"node-{number:04}", interval_s)) for number in range(agents)])
    await load.open()
    print(json.dumps({"agents": agents}), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while order := (await reader.readline()).split():
        name, *numbers = order
        work = {b"beat": load.beat, b"pace": load.pace, b"drop": load.drop, b"fill": load.fill}[name]
        values = [float(number) if b"." in number else int(number) for number in numbers]
        print(json.dumps(await work(*values)), flush=True)  # type: ignore[operator]  # each order has its own numbers


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
