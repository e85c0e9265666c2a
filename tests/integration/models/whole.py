"""A control plane with its gateway, and agents beside made engines: in one process, by the real rules."""

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from muster.agent.agent import Agent, Backends, Devices
from muster.agent.config import AgentConfig
from muster.agent.services.health import HttpHealth
from muster.commands.book import CommandBook
from muster.connectors.comfyui.connector import ComfyUIConnector
from muster.connectors.llamacpp.connector import LlamaCppConnector
from muster.connectors.ollama import OllamaConnector
from muster.control.commands import CommandService
from muster.control.fleet.fleet import Fleet
from muster.control.ingest import Ingest
from muster.control.jobs.service import JobService, JobStores
from muster.control.models.loader import ModelLoader
from muster.control.models.uses import Uses
from muster.control.recorder import Recorder
from muster.domain.gpu import Gpu
from muster.domain.job import JobSpec
from muster.domain.model import Model
from muster.domain.node import Node, Resources
from muster.domain.service import Service
from muster.errors import ModelNotFound
from muster.gateway.figures.usage import Finished, models_used
from muster.gateway.front import Front
from muster.gateway.gateway import Gateway
from muster.gateway.limits import GatewayLimits
from muster.ids import JobId, NodeId
from muster.jobs.retry import RetryPolicy
from muster.links.memory import MemoryLink
from muster.placement.scores import Strategy
from muster.ports import Connector
from muster.registry.book import NodeBook
from muster.registry.lateness import Limits
from muster.stores.memory.bus import MemoryBus
from muster.stores.memory.commands import MemoryCommands
from muster.stores.memory.jobs import MemoryJobs
from muster.stores.memory.log import MemoryLog
from muster.stores.memory.nodes import MemoryNodes
from muster.system import SystemClock
from tests.integration.gateway.door import web
from tests.waiting import eventually

_RETRY = RetryPolicy(base_s=0.01, max_s=0.05)
_LIMITS = GatewayLimits(wake_keepalive_s=0.05)


class NoGpus:
    async def read(self) -> tuple[Gpu, ...]:
        return ()


class Host:
    def __init__(self, used_mb: Callable[[], int], total_mb: int) -> None:
        self._used_mb = used_mb
        self._total_mb = total_mb

    def read(self) -> Resources:
        return Resources(memory_total_mb=self._total_mb, memory_used_mb=self._used_mb())


class Whole:
    def __init__(self, session: aiohttp.ClientSession, data_dir: Path) -> None:
        self.session = session
        self.data_dir = data_dir
        self.clock = SystemClock()
        self.log = MemoryLog(1000)
        bus, rng = MemoryBus(), random.Random(1)
        self.store = MemoryJobs(self.clock, self.log, bus, avoid_s=1.0, class_keep_s=60.0, result_bytes_max=1_000_000)
        self.recorder = Recorder(MemoryNodes(), self.log)
        self.fleet = Fleet(NodeBook(Limits()), self.recorder, self.clock)
        self.jobs = JobService(
            JobStores(queue=self.store, index=self.store, upkeep=self.store, lines=self.store),
            bus,
            self.clock,
            rng,
            lease_s=3.0,
            retry_policy=_RETRY,
            payload_bytes_max=1_000_000,
            payload_checks={},
        )
        self.commands = CommandService(
            CommandBook(), MemoryCommands(100), bus, self.fleet, self.recorder, self.clock, rng
        )
        uses = Uses(self._in_use, self._in_flight, self.clock)
        self.loader = ModelLoader(self.fleet, self.commands, uses, self.clock, timeout_s=20.0, leads=lambda: True)
        self.gateway = Gateway(
            self.fleet,
            clock=self.clock,
            rng=rng,
            authenticate=lambda _shown, _right: None,
            strategy=Strategy.LEAST_LOADED,
            limits=_LIMITS,
            on_finished=self._finished,
            waker=self.loader,
            tracer=None,
        )
        self.front = Front(self.gateway, web, [("127.0.0.1", 0)], tls=None)
        self.parts: list[Any] = [self.recorder, self.jobs, self.commands, self.loader, self.front]

    async def add(self, name: str, *, connectors: Mapping[str, Connector] | None = None, **config: Any) -> Agent:
        """Start an agent; `used_mb` and `total_mb` are the memory that its machine has."""
        host = Host(config.pop("used_mb", lambda: 0), config.pop("total_mb", 8_000))
        defaults: dict[str, Any] = {
            "address": "127.0.0.1",
            "heartbeat_interval_s": 0.1,
            "look_every_s": 0.1,
            "discover": False,
            "stop_timeout_s": 1.0,
        }
        link = MemoryLink(Ingest(self.fleet, self.commands, self.recorder, self.clock, link="memory"), self.jobs)
        agent = Agent(
            AgentConfig(node_id=NodeId(name), **(defaults | config)),
            link,
            link,
            Devices(gpus=NoGpus(), simulated_gpus=lambda _: NoGpus(), host=host),
            Backends(
                connectors=connectors or self.connectors(),
                identify=_nothing_there,
                usual_ports={},
                check_health=HttpHealth(self.session).check,
                fetch_model=_no_model,
            ),
            self.clock,
            random.Random(2),
            self.data_dir / name,
        )
        (self.data_dir / name).mkdir()
        await agent.start()
        await eventually(lambda: self._is_shown(name))
        return agent

    def connectors(self) -> dict[str, Connector]:
        kinds = (OllamaConnector, ComfyUIConnector, LlamaCppConnector)
        return {kind.name: kind(self.session) for kind in kinds}

    def node(self, name: str) -> Node:
        return self.fleet.node(NodeId(name))

    def model(self, name: str, model: str) -> Model | None:
        offered = [known for service in self.node(name).services for known in service.models]
        return next((known for known in offered if known.name == model), None)

    def resident(self, name: str) -> set[str]:
        """Return what the control plane takes for being in the memory of a node."""
        offered = [known for service in self.node(name).services for known in service.models]
        return {known.name for known in offered if known.resident}

    async def chat(self, model: str, *, stream: bool = False) -> tuple[int, str]:
        host, port = self.front.addresses[0]
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": stream}
        path = "/v1/chat/completions" if stream else "/api/chat"
        async with self.session.post(f"http://{host}:{port}{path}", json=body) as response:
            return response.status, await response.text()

    async def submit(self, service: str, payload: Any, **more: Any) -> JobId:
        (submitted,) = await self.jobs.submit(
            [JobSpec(job_id=JobId(""), service_required=service, payload=payload, **more)]
        )
        return submitted.job_id

    async def told(self, kind: str) -> list[dict[str, Any]]:
        await self.recorder.flush()
        return [entry.event.data for entry in await self.log.read("0", 1000) if entry.event.kind == kind]

    async def heard(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until so many have been told."""

        async def enough() -> list[dict[str, Any]]:
            told = await self.told(kind)
            return told if len(told) >= count else []

        return await eventually(enough)

    def _in_use(self) -> list[tuple[str, str]]:
        return self.gateway.in_use()

    def _in_flight(self) -> Mapping[str, int]:
        return self.gateway.stats().in_flight_by_worker

    def _finished(self, finished: Sequence[Finished]) -> None:
        self.loader.uses.answered(models_used(finished))

    def _is_shown(self, name: str) -> bool:
        node = self.fleet.book.get(NodeId(name))
        return node is not None and node.phase == "ready"


@asynccontextmanager
async def whole(data_dir: Path) -> AsyncIterator[Whole]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        made = Whole(session, data_dir)
        for part in made.parts:
            await part.start()
            stack.push_async_callback(_stop, part)
        yield made


async def _stop(part: Any) -> None:
    await (part.stop(0.0) if isinstance(part, Front) else part.stop())


async def _nothing_there(_: str) -> Service | None:
    return None


async def _no_model(name: str) -> Path:
    raise ModelNotFound(f"no model {name!r}")
