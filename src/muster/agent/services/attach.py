"""Services that run without us: watched, never started or stopped."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

import structlog
from msgspec.structs import replace

from muster.agent.board import Entry
from muster.agent.identity import LOOPBACK, is_loopback
from muster.agent.services.look import look
from muster.agent.surroundings import Surroundings
from muster.domain.service import Service, ServiceStatus
from muster.errors import MusterError, SetupError, UpstreamFailed
from muster.ports import Connector
from muster.rounds import Rounds, wait_up_to

log = structlog.get_logger()

_PAUSE_S = 0.5  # between looks, however often it is doubted

Identify = Callable[[str], Awaitable[Service | None]]


class Attached:
    """One service at a URL. `expected`: somebody said that it is there, so its absence is a fault."""

    def __init__(self, name: str, connector: Connector, url: str, around: Surroundings, *, expected: bool) -> None:
        self._connector = connector
        self._url = url
        self._around = around
        self._expected = expected
        self._public_url: str | None = None
        self._service = Service(name=name, connector=connector.name, status=ServiceStatus.STARTING, url=url)
        self._rounds = Rounds()
        self._doubted = asyncio.Event()

    async def start(self) -> None:
        """Look once, then go on looking."""
        if not self._rounds:
            self._around.board.on_doubt(self._service.name, self._doubted.set)
            self._put(self._service)  # its name is taken from now on
            await self._look()
            self._rounds.go("service_look", self._look_again, 0, _PAUSE_S)

    async def stop(self) -> None:
        await self._rounds.stop()

    async def _look_again(self) -> None:
        every_s = self._around.look_every_s
        pause_s = min(_PAUSE_S, every_s)
        await asyncio.sleep(pause_s)
        await wait_up_to(self._doubted, every_s - pause_s)
        self._doubted.clear()
        await self._look()

    async def _look(self) -> None:
        before = self._service
        try:
            seen = await look(self._connector, self._url)
        except UpstreamFailed as error:
            gone = ServiceStatus.UNHEALTHY if self._expected else ServiceStatus.STOPPED
            if before.status is not gone:
                self._tell("service_silent", reason=error.message)
            self._put(replace(before, status=gone, error=error.message))
            return
        self._url = seen.url or self._url  # the connector drops a /v1, which the gateway adds
        if before.status is not ServiceStatus.RUNNING:
            self._public_url = await self._find_public_url()
            self._tell("service_attached", connector=before.connector)
        hidden = f"others cannot reach it: let it listen on {self._around.address}"
        self._put(
            replace(
                before,
                status=ServiceStatus.RUNNING,
                url=self._url,
                dialects=seen.dialects,
                models=seen.models,
                slots=seen.slots,
                slots_busy=seen.slots_busy,
                requests_waiting=seen.requests_waiting,
                error=None if self._public_url else hidden,
            )
        )

    async def _find_public_url(self) -> str | None:
        """Return where others reach it: a loopback URL would lead them to themselves."""
        parts, address = urlsplit(self._url), self._around.address
        if not is_loopback(parts.hostname or "") or is_loopback(address):
            return self._url
        host = f"[{address}]" if ":" in address else address
        public_url = parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host).geturl()
        try:
            await look(self._connector, public_url)
        except UpstreamFailed:
            return None
        return public_url

    def _put(self, service: Service) -> None:
        self._service = service
        self._around.board.put(Entry(service=service, public_url=self._public_url, expected=self._expected))

    def _tell(self, kind: str, **data: str) -> None:
        self._around.outbox.add(kind, service=self._service.name, url=self._url, **data)


class Attachments:
    """A Lifecycle over services that were named, as (connector, url)."""

    def __init__(self, named: tuple[tuple[str, str], ...], around: Surroundings) -> None:
        for connector, url in named:
            if connector not in around.connectors:
                raise SetupError(
                    f"cannot attach {connector}={url}: there is no connector {connector!r}",
                    next_step=f"use one of {', '.join(around.connectors)}",
                )
        self._named = named
        self._around = around
        self._attached: list[Attached] = []

    async def start(self) -> None:
        """Look at all of them; those that are silent now are attached when they answer."""
        await asyncio.gather(*(self.attach(connector, url, expected=True) for connector, url in self._named))

    async def attach(self, connector: str, url: str, *, expected: bool) -> None:
        attached = Attached(
            self._name(connector, url), self._around.connectors[connector], url, self._around, expected=expected
        )
        self._attached.append(attached)
        await attached.start()

    async def stop(self) -> None:
        await asyncio.gather(*(attached.stop() for attached in self._attached))

    def _name(self, connector: str, url: str) -> str:
        """Name it for its kind; further ones of a kind by their ports, and hosts if need be."""
        parts = urlsplit(url)
        names = [connector, f"{connector}-{parts.port}", f"{connector}-{parts.hostname}-{parts.port}"]
        return next((name for name in names if not self._around.board.has(name)), names[-1])


class Discovery:
    """A Lifecycle that attaches what answers at the usual ports of model servers, now and later."""

    def __init__(
        self,
        identify: Identify,
        usual_ports: Mapping[str, int],
        ignored_ports: frozenset[int],
        attachments: Attachments,
        around: Surroundings,
        *,
        every_s: float,
    ) -> None:
        self._identify = identify
        self._ports = sorted(set(usual_ports.values()) - ignored_ports)
        self._attachments = attachments
        self._around = around
        self._every_s = every_s
        self._rounds = Rounds()

    async def start(self) -> None:
        if not self._rounds:
            await self._discover()
            self._rounds.go("discovery", self._discover_later, 0)

    async def stop(self) -> None:
        await self._rounds.stop()

    async def _discover_later(self) -> None:
        await asyncio.sleep(self._every_s)
        await self._discover()

    async def _discover(self) -> None:
        """Ask every port at which nothing of ours is known; the port alone proves nothing."""
        ports = set(self._ports) - self._known_ports()
        await asyncio.gather(*(self._ask(f"http://{LOOPBACK}:{port}") for port in ports))

    async def _ask(self, url: str) -> None:
        try:
            found = await self._identify(url)
        except MusterError as error:
            log.debug("nothing_found", url=url, error=error.message)
            return
        if found is not None and found.connector in self._around.connectors:
            await self._attachments.attach(found.connector, url, expected=False)

    def _known_ports(self) -> set[int | None]:
        here = [urlsplit(service.url) for service in self._around.board.services() if service.url]
        return {
            parts.port for parts in here if is_loopback(parts.hostname or "") or parts.hostname == self._around.address
        }
