"""A control plane for nodes that notes what it hears, and agents to talk to it."""

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from muster.agent.agent import Agent, Backends, Devices
from muster.agent.config import AgentConfig
from muster.domain.command import Command, CommandStatus
from muster.domain.event import Event
from muster.domain.gpu import Gpu
from muster.domain.node import Resources
from muster.domain.service import Service
from muster.errors import Forbidden, ModelNotFound, UpstreamFailed
from muster.ids import CommandId, NodeId
from muster.wire import (
    AgentEvents,
    ArtifactQuery,
    ArtifactReply,
    CommandBatch,
    CommandPoll,
    CommandReport,
    CommandReports,
    Deregistration,
    Heartbeat,
    HeartbeatReply,
    Join,
    Joined,
    LogChunk,
    LogChunkReply,
    Registration,
    RegistrationReply,
    decode,
    encode,
)
from tests.unit.agent.connectors import FakeConnector
from tests.unit.agent.queues import FakeQueue, WireLink
from tests.unit.agent.virtual_time import LoopClock, time_passes

NODE = NodeId("gpu-1")


class FakePlane:
    """A NodeLink. `trouble` is asked before each call; `reply` is what heartbeats get.

    What is in `waiting` is sent with every reply to a poll until it is acknowledged.
    """

    def __init__(self) -> None:
        self.registrations: list[Registration] = []
        self.heartbeats: list[Heartbeat] = []
        self.beat_at_s: list[float] = []
        self.events: list[Event] = []
        self.gone: list[Deregistration] = []
        self.waiting: list[Command] = []
        self.polls: list[CommandPoll] = []
        self.logs: list[LogChunk] = []
        self.reports: list[CommandReport] = []
        self.reply = HeartbeatReply(next_heartbeat_ms=10_000)
        self.once: list[HeartbeatReply] = []
        self.trouble: Callable[[str], Awaitable[None]] | None = None

    async def _hear(self, name: str, message: Any) -> Any:
        if self.trouble is not None:
            await self.trouble(name)
        return decode(encode(message), type(message))

    async def register(self, message: Registration) -> RegistrationReply:
        self.registrations.append(await self._hear("register", message))
        return RegistrationReply(node_id=message.facts.node_id, next_heartbeat_ms=10_000)

    async def heartbeat(self, message: Heartbeat) -> HeartbeatReply:
        self.heartbeats.append(await self._hear("heartbeat", message))
        self.beat_at_s.append(LoopClock().monotonic_s())
        return self.once.pop(0) if self.once else self.reply

    async def report_events(self, message: AgentEvents) -> None:
        self.events += (await self._hear("events", message)).events

    async def deregister(self, message: Deregistration) -> None:
        self.gone.append(await self._hear("deregister", message))

    async def next_commands(self, message: CommandPoll) -> CommandBatch:
        self.polls.append(await self._hear("next_commands", message))
        asked_s = LoopClock().monotonic_s()
        while not self.waiting and LoopClock().monotonic_s() < asked_s + message.wait_s:
            await time_passes(0.1)
        batch = CommandBatch(commands=tuple(self.waiting), now_ms=LoopClock().now_ms())
        return decode(encode(batch), CommandBatch)

    async def report_commands(self, message: CommandReports) -> None:
        heard: CommandReports = await self._hear("report_commands", message)
        self.reports += heard.reports
        told = {report.command_id for report in heard.reports}
        self.waiting = [command for command in self.waiting if command.command_id not in told]

    async def tell_logs(self, message: LogChunk) -> LogChunkReply:
        self.logs.append(await self._hear("tell_logs", message))
        return LogChunkReply(wanted=True)

    async def find_artifacts(self, _: ArtifactQuery) -> ArtifactReply:
        return ArtifactReply()

    async def join(self, _: Join) -> Joined:
        raise Forbidden("nobody joins in these tests")

    def order(self, name: str, number: int = 1, *, timeout_s: float = 60.0, **args: Any) -> None:
        now_ms = LoopClock().now_ms()
        self.waiting.append(
            Command(
                command_id=CommandId(f"command-{number}"),
                node_id=NODE,
                command=name,
                args=args,
                created_at_ms=now_ms,
                deadline_ms=now_ms + round(timeout_s * 1000),
            )
        )

    def ends(self, number: int = 1) -> list[CommandReport]:
        """Return what was told of a command's end, as often as it was."""
        command_id = CommandId(f"command-{number}")
        return [
            report
            for report in self.reports
            if report.command_id == command_id and report.status is not CommandStatus.ACKED
        ]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.events if event.kind == kind]


class FakeGpus:
    def __init__(self, *gpus: Gpu) -> None:
        self.gpus = gpus
        self.error: Exception | None = None

    async def read(self) -> tuple[Gpu, ...]:
        if self.error is not None:
            raise self.error
        return self.gpus


def gpu(index: int, **more: Any) -> Gpu:
    return Gpu(index=index, name="RTX 4090", memory_total_mb=24_564, memory_used_mb=1_000, **more)


def simulated_gpus(count: int) -> FakeGpus:
    return FakeGpus(*(gpu(index, simulated=True) for index in range(count)))


class FakeHost:
    def read(self) -> Resources:
        return Resources(memory_total_mb=64_000, memory_used_mb=8_000, cpu_percent=None)


async def nothing_there(_: str) -> Service | None:
    return None


async def no_model(name: str) -> Path:
    raise ModelNotFound(f"no model {name!r}")


async def healthy(_: str) -> None:
    return None


async def unhealthy(url: str) -> None:
    raise UpstreamFailed(f"{url} answered 503")


def agent(plane: FakePlane, queue: FakeQueue, data_dir: Path, *, gpus: FakeGpus | None = None, **more: Any) -> Agent:
    connectors: dict[str, FakeConnector] = more.pop("connectors", {"work": FakeConnector()})
    backends: dict[str, Any] = {
        "connectors": connectors,
        "identify": nothing_there,
        "usual_ports": {},
        "check_health": healthy,
        "fetch_model": no_model,
    }
    backends |= {name: more.pop(name) for name in list(more) if name in backends}
    config: dict[str, Any] = {"address": "127.0.0.1", "stop_timeout_s": 1.0} | more
    return Agent(
        AgentConfig(node_id=NODE, **config),
        plane,
        WireLink(queue),
        Devices(gpus=gpus or FakeGpus(), simulated_gpus=simulated_gpus, host=FakeHost()),
        Backends(**backends),
        LoopClock(),
        random.Random(1),
        data_dir,
    )
