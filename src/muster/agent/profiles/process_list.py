"""What runs on this machine, for tools that ask a process manager, and whether jobs are simulated here.

Both are served on loopback only: nothing here is for other machines.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aiohttp import web

from muster.agent.services.sockets import holder_of
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.errors import UpstreamFailed

_HOST = "127.0.0.1"
# The words of PM2, by which people and scripts know the states of processes.
_WORDS = {
    ServiceStatus.STARTING: "launching",
    ServiceStatus.RUNNING: "online",
    ServiceStatus.UNHEALTHY: "errored",
    ServiceStatus.STOPPING: "stopping",
    ServiceStatus.STOPPED: "stopped",
    ServiceStatus.FAILED: "errored",
}
_SIMULATION = "simulation"
_UNAVAILABLE = 503
_STOP_S = 1.0


class ProcessList:
    """A Lifecycle: GET /pm2/list at one port, GET /health of the simulation at another."""

    def __init__(
        self,
        services: Callable[[], Sequence[Service]],
        workers: Callable[[], Sequence[Worker]],
        *,
        list_port: int,
        simulation_port: int,
    ) -> None:
        self._services = services
        self._workers = workers
        self._ports = {"list": list_port, _SIMULATION: simulation_port}
        self._runners: dict[str, web.AppRunner] = {}
        self._started_ms = round(time.time() * 1000)

    async def start(self) -> None:
        """Raise UpstreamFailed that names who holds a port."""
        handlers = {"list": ("/pm2/list", self._list), _SIMULATION: ("/health", self._health)}
        for name, (path, handler) in handlers.items():
            if name in self._runners:
                continue
            app = web.Application()
            app.router.add_get(path, handler)
            runner = self._runners[name] = web.AppRunner(app, shutdown_timeout=_STOP_S, access_log=None)
            await runner.setup()
            port = self._ports[name]
            try:
                await web.TCPSite(runner, _HOST, port).start()
            except OSError as error:
                holder = holder_of(_HOST, port) or error.strerror
                raise UpstreamFailed(f"port {port} is held by {holder}: end that, or choose another port") from None

    async def stop(self) -> None:
        runners, self._runners = self._runners, {}
        for runner in runners.values():
            await runner.cleanup()

    @property
    def urls(self) -> dict[str, str]:
        at = {name: runner.addresses[0][1] for name, runner in self._runners.items() if runner.addresses}
        return {
            "process_list": f"http://{_HOST}:{at['list']}/pm2/list",
            "simulation": f"http://{_HOST}:{at[_SIMULATION]}/health",
        }

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response(list(self._processes()))

    async def _health(self, _: web.Request) -> web.Response:
        """Answer 200 while a worker here takes simulated jobs."""
        workers = [worker for worker in self._workers() if _SIMULATION in worker.connectors]
        running = [worker for worker in workers if worker.status not in {WorkerStatus.STOPPED, WorkerStatus.ERROR}]
        body = {
            "status": "ok" if running else "unavailable",
            "service": _SIMULATION,
            "workers": {worker.worker_id: worker.status.value for worker in workers},
        }
        return web.json_response(body, status=200 if running else _UNAVAILABLE)

    def _processes(self) -> Iterator[Mapping[str, Any]]:
        """List the agent first, then its services; what stopped stays in the list."""
        yield _entry(0, "orchestrator", ServiceStatus.RUNNING, os.getpid(), self._started_ms, 0, None)
        for number, service in enumerate(self._services(), start=1):
            started_ms = service.started_at_ms or self._started_ms
            yield _entry(number, service.name, service.status, service.pid, started_ms, service.restarts, service.error)


def _entry(
    number: int, name: str, status: ServiceStatus, pid: int | None, started_ms: int, restarts: int, error: str | None
) -> dict[str, Any]:
    word = _WORDS[status]
    return {
        "name": name,
        "status": word,
        "pid": pid,
        "pm_id": number,
        "error": error,
        "pm2_env": {"status": word, "pm_uptime": started_ms, "restart_time": restarts},
    }
