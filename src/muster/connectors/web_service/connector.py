"""Jobs for a service that speaks HTTP. Whom it may talk to stands in the node's file; a job only names it."""

import asyncio
import os
import re
from collections.abc import Mapping
from typing import Any

import aiohttp

from muster.connectors.engine import failures_named
from muster.connectors.payload import Checked, read_payload
from muster.connectors.web_service.config import WebRequest, WebService
from muster.connectors.web_service.exchange import Exchange
from muster.connectors.web_service.poll import poll
from muster.connectors.web_service.stream import follow
from muster.domain.job import ClaimedJob
from muster.domain.service import Service, ServiceStatus
from muster.errors import InvalidInput, SetupError, UpstreamFailed, UpstreamTimeout
from muster.ports import JobFiles, ReportProgress

HTTP = "http"

_LOOK_S = 3.0
_BAD_REQUEST = 400
_SERVER_ERROR = 502  # what a proxy says of a service that is away; one that minds HEAD answers 501 or less
_FROM_ENV = re.compile(r"\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


class WebServiceRules(Checked):
    """What a control plane knows, whatever services the nodes have."""

    name = HTTP
    provides: tuple[str, ...] = (HTTP,)
    payload = WebRequest


class WebServiceConnector(WebServiceRules):
    """One for each service."""

    needs_service = True

    def __init__(self, session: aiohttp.ClientSession, config: WebService, env: Mapping[str, str] = os.environ) -> None:
        if (problem := config.problem()) is not None:
            raise SetupError(f"http {config.name}: {problem}", next_step="correct the node's file")
        self.name = f"{HTTP}:{config.name}"
        self.provides = (self.name,)
        self._config = config
        self._session = session
        self._headers = {name: _with_env(value, env, config.name) for name, value in config.headers.items()}

    async def probe(self, url: str) -> Service:
        """Say that it runs when it answers at all; with a `health` only when that is no error."""
        config = self._config
        look = url.rstrip("/") + (config.health or config.path)
        with failures_named(look, f"within {_LOOK_S:g} s"):
            async with (
                asyncio.timeout(_LOOK_S),
                self._session.request(
                    "GET" if config.health else "HEAD", look, headers=self._headers, allow_redirects=False
                ) as response,
            ):
                if response.status >= (_BAD_REQUEST if config.health else _SERVER_ERROR):
                    raise UpstreamFailed(f"{look} answered with status {response.status}")
        return Service(name=config.name, connector=self.name, status=ServiceStatus.RUNNING, url=url, slots=config.slots)

    async def run(self, job: ClaimedJob, service: Service | None, report: ReportProgress, files: JobFiles) -> Any:
        config, asked = self._config, read_payload(job.spec.payload, WebRequest)
        path, method = asked.path or config.path, asked.method or config.methods[0]
        if path not in (config.path, *config.paths):
            raise InvalidInput(
                f"payload.path must be one that this node's file allows for {config.name}: "
                f"{', '.join((config.path, *config.paths))}",
                field="payload.path",
            )
        if method not in config.methods:
            raise InvalidInput(
                f"payload.method must be {' or '.join(config.methods)} for {config.name}", field="payload.method"
            )
        if service is None or service.url is None:
            raise UpstreamFailed(f"{self.name} does not run here at present")
        exchange = Exchange(self._session, service.url.rstrip("/"), config, self._headers)
        try:
            async with asyncio.timeout(config.timeout_s) as deadline:
                match config.answer, config.poll:
                    case "poll", polling if polling is not None:
                        return await poll(exchange, polling, path, method, asked, report)
                    case "stream", _:
                        return await follow(exchange, path, method, asked, report)
                return await exchange.ask_for_result(path, method, asked, files)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise UpstreamTimeout(f"{self.name} did not end within {config.timeout_s:g} s") from None


def _with_env(text: str, env: Mapping[str, str], service: str) -> str:
    def value(match: re.Match[str]) -> str:
        if (found := env.get(match[1])) is None:
            raise SetupError(
                f"http {service}: the environment has no {match[1]}, which a header needs",
                next_step=f"set {match[1]} for the agent, or remove that header",
            )
        return found

    return _FROM_ENV.sub(value, text)
