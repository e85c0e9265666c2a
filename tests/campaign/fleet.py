"""A real fleet to be hurt: control planes on one Valkey and one RabbitMQ, agents over every link, all behind gates."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from msgspec import Struct

from tests.campaign.gate import Gate
from tests.campaign.pace import LOOK_S, pause
from tests.campaign.schedule import AGENT, BROKER, PLANE, STORE, Fault
from tests.muster_process import ControlPlane, MusterProcess, free_port
from tests.rabbitmq import VHOST, RabbitMq
from tests.valkey_server import ValkeyServer

UNANSWERED = (OSError, TimeoutError, aiohttp.ClientError, ValueError)
LINKS = ("http", "grpc", "amqp")
_START_S = 120.0
_CALL_S = 10.0
_STORE = "valkey"
# Nothing that was answered is lost: written and synced before the answer. With `everysec` a killed server loses
# nothing either unless the disk lags behind (then up to two seconds), but a machine that loses power does.
_DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
# Everything that waits is made short; the rules are the same. The log keeps all that is told.
_BRISK = {
    "MUSTER_MODEL": "none",
    "MUSTER_DISCOVER": "false",
    "MUSTER_HEARTBEAT_INTERVAL_S": "1",
    "MUSTER_JOB_LEASE_S": "5",
    "MUSTER_JOB_SWEEP_S": "0.2",
    "MUSTER_JOB_RETRY_BASE_S": "0.2",
    "MUSTER_JOB_RETRY_MAX_S": "2",
    "MUSTER_JOBS_ENDED_MAX": "1000000",
    "MUSTER_EVENT_LOG_ENTRIES_MAX": "1000000",
    "MUSTER_STOP_TIMEOUT_S": "1",
    "MUSTER_LOG_LEVEL": "info",
}


class Shape(Struct, frozen=True, kw_only=True):
    planes: int
    agents: int
    workers: int

    def workers_of(self, agent: int) -> int:
        return self.workers // self.agents + (agent < self.workers % self.agents)


class Fleet:
    """`targets` names who can be hurt; agents are called by their node ids."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.shape = shape
        self._folder = folder
        self.store = ValkeyServer(_STORE, *_DURABLE)
        self.broker = RabbitMq(folder / "broker")
        self.planes: dict[str, ControlPlane] = {}
        self.agents: dict[str, MusterProcess] = {}
        self._gates: dict[str, list[Gate]] = {}
        self._session: aiohttp.ClientSession | None = None
        self.hurt: dict[str, Fault] = {}

    @property
    def targets(self) -> dict[str, list[str]]:
        return {AGENT: self.agent_names, PLANE: self.plane_names, STORE: ["store"], BROKER: ["broker"]}

    @property
    def plane_names(self) -> list[str]:
        return [f"plane-{number}" for number in range(self.shape.planes)]

    @property
    def agent_names(self) -> list[str]:
        return [f"{LINKS[number % len(LINKS)]}-{number}" for number in range(self.shape.agents)]

    # --- its life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_CALL_S))
        await asyncio.gather(asyncio.to_thread(self.store.start), asyncio.to_thread(self.broker.start))
        for name in self.plane_names:
            (gate,) = self._gates[name] = [await Gate(self.store.socket).open()]
            grpc_port = free_port()
            env = {
                "MUSTER_VALKEY_URL": f"valkey://127.0.0.1:{gate.port}",
                "MUSTER_GRPC_LISTEN": f"127.0.0.1:{grpc_port}",
                "MUSTER_RABBITMQ_URL": f"{self.broker.url}/{VHOST}",
            }
            self.planes[name] = ControlPlane(self._folder / name, env=_BRISK | env)
            MusterProcess.start(self.planes[name])
        for number, name in enumerate(self.agent_names):
            self.agents[name] = await self._agent(name, self.shape.workers_of(number))
            self.agents[name].start()
        async with asyncio.timeout(_START_S):
            while await self.ailing():
                await pause(LOOK_S)

    async def _agent(self, name: str, workers: int) -> MusterProcess:
        link = name.partition("-")[0]
        http = await Gate(*(plane.port for plane in self.planes.values())).open()
        self._gates[name] = [http]
        env = {
            "MUSTER_CONTROL_PLANE": f"http://127.0.0.1:{http.port}",
            "MUSTER_LINK": link,
            "MUSTER_NODE_ID": name,
            "MUSTER_NUM_GPUS": str(workers),
            "MUSTER_LABELS": f"agent={name}",
            "MUSTER_DATA_DIR": str(self._folder / name / "data"),
        }
        if link == "grpc":
            ports = [int(plane.env["MUSTER_GRPC_LISTEN"].rpartition(":")[2]) for plane in self.planes.values()]
            grpc = await Gate(*ports).open()
            self._gates[name].append(grpc)
            env["MUSTER_CONTROL_PLANE"] = f"grpc://127.0.0.1:{grpc.port}"
        elif link == "amqp":
            amqp = await Gate(self.broker.port).open()
            self._gates[name].append(amqp)
            env["MUSTER_RABBITMQ_URL"] = f"{self.broker.url}/{VHOST}".replace(f":{self.broker.port}", f":{amqp.port}")
        return MusterProcess(self._folder / name, "agent", env=_BRISK | env)

    async def stop(self) -> None:
        for process in (*self.agents.values(), *self.planes.values()):
            process.kill()
        for gate in (gate for gates in self._gates.values() for gate in gates):
            await gate.close()
        await asyncio.to_thread(self.broker.remove)
        self.store.remove()
        if self._session is not None:
            await self._session.close()

    # --- faults -------------------------------------------------------------------------------------------------------

    async def hit(self, fault: Fault) -> None:
        self.hurt[fault.target] = fault
        group, _, way = fault.kind.partition("_")
        if group == STORE:
            await asyncio.to_thread(self._hit_store, way)
        elif group == BROKER:
            await asyncio.to_thread(self.broker.kill if way == "killed" else self.broker.stop)
        elif way in {"killed", "stopped", "frozen"}:
            process = self._processes[fault.target]
            await asyncio.to_thread({"killed": process.kill, "stopped": process.stop, "frozen": process.freeze}[way])
        else:
            for gate in self._gates[fault.target]:
                if way == "cut_off":
                    gate.cut()
                else:
                    gate.hush()

    async def mend(self, fault: Fault) -> None:
        group, _, way = fault.kind.partition("_")
        if group == STORE:
            await asyncio.to_thread(self._mend_store, way)
        elif group == BROKER:
            await asyncio.to_thread(self.broker.start)
        elif way in {"killed", "stopped"}:
            MusterProcess.start(self._processes[fault.target])
        elif way == "frozen":
            self._processes[fault.target].thaw()
        else:
            for gate in self._gates[fault.target]:
                gate.heal()
        del self.hurt[fault.target]

    def _hit_store(self, way: str) -> None:
        if way == "killed":
            self.store.kill()
        else:
            os.kill(self._store_pid, signal.SIGSTOP)

    def _mend_store(self, way: str) -> None:
        if way == "killed":
            self.store.start()
        else:
            os.kill(self._store_pid, signal.SIGCONT)

    @property
    def _store_pid(self) -> int:
        assert self.store.process is not None
        return self.store.process.pid

    # --- what it says -------------------------------------------------------------------------------------------------

    async def ask(self, plane: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and body; one of UNANSWERED where no whole answer came."""
        assert self._session is not None
        async with self._session.request(method, self.planes[plane].url + path, json=body) as answer:
            return answer.status, await answer.json(content_type=None)

    async def ailing(self) -> list[str]:
        """Say what is not as it must be: every control plane shows every node and worker at work, and one leads."""
        trouble = [f"{name} ended: see {p.log_path}" for name, p in self._processes.items() if not p.running]
        shown = await asyncio.gather(*(self.nodes(name) for name in self.plane_names))
        for plane, nodes in zip(self.plane_names, shown, strict=True):
            if nodes is None:
                trouble.append(f"{plane} does not answer")
                continue
            trouble += [f"{plane} says {what}" for what in _complaints(nodes, self._workers_due())]
        leaders = [plane for plane in self.plane_names if not trouble and await self._leads(plane)]
        return trouble if trouble or len(leaders) == 1 else [f"{len(leaders)} control planes lead"]

    async def _leads(self, plane: str) -> bool:
        assert self._session is not None
        try:
            async with self._session.get(f"{self.planes[plane].url}/metrics") as answer:
                return "\nmuster_control_plane_leads 1\n" in await answer.text()
        except UNANSWERED:
            return False

    @property
    def _processes(self) -> Mapping[str, MusterProcess]:
        return self.planes | self.agents

    def _workers_due(self) -> dict[str, int]:
        return {name: self.shape.workers_of(number) for number, name in enumerate(self.agent_names)}

    async def nodes(self, plane: str) -> dict[str, Any] | None:
        """Return the nodes that a control plane shows, by name; None when it does not answer."""
        try:
            status, body = await self.ask(plane, "GET", "/api/v1/nodes")
        except UNANSWERED:
            return None
        return {node["node_id"]: node for node in body} if status == 200 else None


def _complaints(nodes: Mapping[str, Any], workers: Mapping[str, int]) -> Sequence[str]:
    found = []
    for name, due in workers.items():
        node = nodes.get(name)
        if node is None or node["health_status"] != "healthy":
            found.append(f"{name} is {node['health_status'] if node else 'not there'}")
            continue
        ready = sum(worker["status"] in {"idle", "busy"} for worker in node["workers"])
        if ready != due:
            found.append(f"{name} has {ready} of {due} workers")
    return found
