"""What commands can do to the services of a node; what a service cannot, is refused in its name."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from muster.agent.board import ServiceBoard
from muster.agent.services.supervisor import Supervisor
from muster.commands.kinds import LINES_MAX
from muster.domain.model import canonical_model_name
from muster.domain.service import Service, ServiceStatus
from muster.errors import Conflict, ModelNotFound, NotFound, SetupError, UpstreamFailed
from muster.ports import Connector, PullsModels, RemovesModels, ReportProgress, UnloadsModels

_LOG_BYTES_MAX = 49_152  # leaves room for how JSON writes it
_LINES = 100


class ServiceActions:
    def __init__(
        self,
        board: ServiceBoard,
        connectors: Mapping[str, Connector],
        fetch_model: Callable[[str], Awaitable[Path]],
        supervisor: Callable[[], Supervisor | None],
    ) -> None:
        self._board = board
        self._connectors = connectors
        self._fetch_model = fetch_model
        self._supervisor = supervisor

    async def restart(self, args: dict[str, Any], _: ReportProgress) -> dict[str, Any]:
        name = args["service"]
        service = await self._managed(name, "restarted").restart(name)
        if service.status is not ServiceStatus.RUNNING:
            raise UpstreamFailed(f"{name} is {service.status.value} after its restart: {service.error or 'no reason'}")
        return {"service": name, "status": service.status.value, "pid": service.pid, "url": service.url}

    async def stop(self, args: dict[str, Any], _: ReportProgress) -> dict[str, Any]:
        name = args["service"]
        service = await self._managed(name, "stopped").stop_service(name)
        return {"service": name, "status": service.status.value}

    async def logs(self, args: dict[str, Any], _: ReportProgress) -> dict[str, Any]:
        name = args["service"]
        file = self._managed(name, "read").log_file(name)
        lines = await asyncio.to_thread(file.tail, min(args.get("lines", _LINES), LINES_MAX), _LOG_BYTES_MAX)
        return {"service": name, "lines": lines}

    async def pull_model(self, args: dict[str, Any], report: ReportProgress) -> Any:
        """Let the service named fetch it, else keep it ourselves if it is built in, else let any that can."""
        model = args["model"]
        if "service" not in args:
            try:
                return {"model": model, "path": str(await self._fetch_model(model))}
            except SetupError as error:
                unknown = f"{error.message}: {error.next_step}"
        else:
            unknown = ""
        return await self.pull_by_service(model, report, args.get("service"), unknown=unknown)

    async def pull_by_service(
        self,
        model: str,
        report: ReportProgress,
        service: str | None = None,
        connector: str | None = None,
        *,
        unknown: str = "",
    ) -> Any:
        """Let the service of that name fetch it, else the first of that connector, else any that can."""
        candidates = self._running(service, connector)
        for candidate in candidates:
            driver = self._connectors[candidate.connector]
            if isinstance(driver, PullsModels):
                return await driver.pull_model(candidate, model, report)
        raise Conflict(_cannot(candidates, "fetch models", connector) + (f"; {unknown}" if unknown else ""))

    async def remove_model(self, model: str, service: str | None = None, connector: str | None = None) -> Any:
        """Let the services delete it that have it and can."""
        candidates = self._running(service, connector)
        holders = [candidate for candidate in candidates if has_model(candidate, model)]
        if not holders:
            raise ModelNotFound(f"no running service of this node has the model {model!r}, and neither does its store")
        removed = None
        for holder in holders:
            driver = self._connectors[holder.connector]
            if isinstance(driver, RemovesModels):
                removed = await driver.remove_model(holder, model)
        if removed is None:
            raise Conflict(_cannot(holders, "delete a model"))
        return removed

    async def unload_model(self, args: dict[str, Any], _: ReportProgress) -> Any:
        model = args["model"]
        candidates = self._running(args.get("service"))
        holders = [service for service in candidates if has_model(service, model)]
        if not holders:
            raise ModelNotFound(f"no running service of this node has the model {model!r}")
        for service in holders:
            connector = self._connectors[service.connector]
            if isinstance(connector, UnloadsModels):
                return await connector.unload_model(service, model)
        raise Conflict(_cannot(holders, "let go of a model"))

    def _managed(self, name: str, what: str) -> Supervisor:
        supervisor = self._supervisor()
        if supervisor is not None and supervisor.has(name):
            return supervisor
        if self._board.has(name):
            raise Conflict(f"{name} was found running and is not managed by this agent: it cannot be {what} from here")
        raise NotFound(f"this node has no service {name!r}; it has {self._names()}")

    def _running(self, name: str | None, connector: str | None = None) -> list[Service]:
        """Return the services that run: of that name, of that connector, or all."""
        if name is not None and not self._board.has(name):
            raise NotFound(f"this node has no service {name!r}; it has {self._names()}")
        found = [
            service
            for service in self._board.services()
            if name in {None, service.name} and connector in {None, service.connector}
        ]
        running = [
            service
            for service in found
            if service.status is ServiceStatus.RUNNING and service.connector in self._connectors
        ]
        if name is not None and not running:
            state = f"it is {found[0].status.value}" if found else f"it is no {connector} service"
            raise UpstreamFailed(f"{name} does not run: {state}")
        return running

    def _names(self) -> str:
        return ", ".join(service.name for service in self._board.services()) or "none"


def has_model(service: Service, model: str) -> bool:
    wanted = canonical_model_name(model)
    return any(canonical_model_name(known.name) == wanted for known in service.models)


def _cannot(services: list[Service], what: str, connector: str | None = None) -> str:
    named = ", ".join(f"{service.name} ({service.connector})" for service in services)
    kind = f"{connector} service" if connector else "service"
    return f"{named} cannot {what}" if services else f"no {kind} runs here that could {what}"
