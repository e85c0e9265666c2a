"""Small servers as services, and all that a supervisor needs to run them."""

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from muster.agent.board import ServiceBoard
from muster.agent.config import ServiceTemplate
from muster.agent.outbox import Outbox
from muster.agent.services.health import HttpHealth
from muster.agent.services.launch import Provisions
from muster.agent.services.supervisor import Supervisor
from muster.agent.services.template import instances
from muster.agent.surroundings import Surroundings
from muster.domain.job import ClaimedJob
from muster.domain.model import Model
from muster.domain.service import Service, ServiceStatus
from muster.errors import UpstreamFailed
from muster.ids import NodeId
from muster.ports import JobFiles, ReportProgress
from muster.system import SystemClock

# Serves GET; /crash ends it, /hang makes it deaf, /env shows its environment, /fork leaves a child behind, /flee one
# that is no child of it any more, in a session of its own.
SERVER = """
import http.server, json, os, subprocess, sys, threading, time
print("serving on", sys.argv[1], flush=True)
deaf = threading.Event()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash":
            print("about to crash", flush=True)
            os._exit(3)
        if self.path == "/hang":
            deaf.set()
        if deaf.is_set():
            self.send_response(503); self.end_headers(); return
        body = b"ok"
        if self.path == "/env":
            body = json.dumps(dict(os.environ)).encode()
        if self.path == "/fork":
            body = str(subprocess.Popen(["sleep", "600"]).pid).encode()
        if self.path == "/flee":
            body = subprocess.check_output(["sh", "-c", "setsid sleep 600 >/dev/null & echo $!"])
        self.send_response(200); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def alive(pid: int | None) -> bool:
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class WebConnector:
    """Drives the servers above."""

    name = "web"
    provides = ("web",)
    needs_service = True

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def probe(self, url: str) -> Service:
        try:
            async with self._session.get(url) as response:
                if response.status != 200:
                    raise UpstreamFailed(f"{url} answered {response.status}")
        except aiohttp.ClientError as error:
            raise UpstreamFailed(f"{url}: {type(error).__name__}") from None
        return Service(
            name="web", connector="web", status=ServiceStatus.RUNNING, url=url, models=(Model(name="m"),), slots=2
        )

    def check(self, payload: Any) -> None:
        pass

    def schema(self) -> dict[str, Any]:
        return {}

    async def run(self, job: ClaimedJob, service: Service | None, report: ReportProgress, files: JobFiles) -> Any:
        assert service is not None
        async with self._session.get(f"{service.url}{job.spec.payload}") as response:
            return await response.text()


class StillConnector(WebConnector):
    """Takes anything for a service that runs, a program that only sleeps as well."""

    name = "still"

    async def probe(self, url: str) -> Service:
        return Service(name="still", connector="still", status=ServiceStatus.RUNNING, url=url)


def still(name: str = "still", *command: str, **more: Any) -> ServiceTemplate:
    return ServiceTemplate(
        name=name, connector="still", command=command or ("sleep", "600"), **({"stop_timeout_s": 5.0} | more)
    )


def web(name: str = "web", *command: str, **more: Any) -> ServiceTemplate:
    return ServiceTemplate(
        name=name,
        connector="web",
        command=command or (sys.executable, "-c", SERVER, "{port}"),
        **({"stop_timeout_s": 5.0, "start_timeout_s": 30.0} | more),
    )  # fmt: skip


class Site:
    """A supervisor with its board and what it has told."""

    def __init__(
        self, session: aiohttp.ClientSession, data_dir: Path, *templates: ServiceTemplate, **more: Any
    ) -> None:
        clock = SystemClock()
        self.session = session
        self.data_dir = data_dir
        self.board = ServiceBoard()
        self.outbox = Outbox(NodeId("gpu-1"), clock)
        around = Surroundings(
            address="127.0.0.1",
            connectors={"web": WebConnector(session), "still": StillConnector(session)},
            board=self.board,
            outbox=self.outbox,
            clock=clock,
            rng=random.Random(1),
            look_every_s=0.05,
        )
        provisions = Provisions(
            data_dir=data_dir,
            models=more.get("models", {}),
            missing_models=more.get("missing_models", {}),
            check_health=HttpHealth(session).check,
            gpu_names=more.get("gpu_names", {}),
            cgroups=more.get("cgroups"),
            limits_required=more.get("limits_required", False),
            adopt_within_s=more.get("adopt_within_s", 0.0),
        )
        self.supervisor = Supervisor(instances(templates, more.get("gpus", ())), provisions, around)

    async def vanish(self) -> dict[str, int | None]:
        """Go as a killed agent goes: nothing is stopped, the line to the keeper is cut. Return what was running."""
        pids = {service.name: service.pid for service in self.board.services()}
        await asyncio.gather(*(each.leave() for each in self.supervisor._supervised.values()))
        await self.supervisor._keeper.close()
        return pids

    def service(self, name: str = "web") -> Service:
        found = {service.name: service for service in self.board.services()}
        return found[name]

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.outbox.batch(500) if event.kind == kind]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.outbox.batch(500)]

    async def get(self, path: str, name: str = "web") -> str:
        async with self.session.get(f"{self.service(name).url}{path}") as response:
            return await response.text()
