"""The gRPC port of the control plane, where it is wanted and can be had."""

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import structlog

from muster.access.roles import Right
from muster.access.tokens import is_join_token
from muster.clock import Clock
from muster.control.access import Access
from muster.control.fleet.fleet import Fleet
from muster.control.fleet.presence import Presence
from muster.domain.node import Node
from muster.errors import SetupError
from muster.links.grpc.door import GrpcDoor
from muster.links.guarded import GuardedLink
from muster.ports import JobLink, NodeLink
from muster.settings import Settings
from muster.system import system_rng
from muster.tls import Certificate

if TYPE_CHECKING:
    from muster.links.grpc.control_side import GrpcServer

_PACKAGES = ("grpc", "grpc_health", "grpc_reflection")  # of the extra

log = structlog.get_logger()


class GrpcPort:
    """A Lifecycle; started, `url` says where agents' gRPC links end, None: nowhere.

    What was asked for and cannot be is a SetupError. The default address is a mere offer: where another program has it,
    or the packages are missing, all else starts without.
    """

    def __init__(
        self,
        settings: Settings,
        certificate: Certificate | None,
        fleet: Fleet,
        access: Access,
        nodes: NodeLink,
        jobs: JobLink,
        clock: Clock,
    ) -> None:
        self._certificate = certificate
        self._settings = settings
        self._clock = clock
        self._fleet = fleet
        self._access = access
        self._ends = (nodes, jobs)
        self._presence = Presence(fleet, clock, link="grpc")
        self._door: GrpcDoor | None = None
        self._server: GrpcServer | None = None  # as soon as somebody has spoken to it

    @property
    def url(self) -> str | None:
        address = self._settings.grpc_address
        if self._door is None or address is None:
            return None
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{'grpcs' if self._certificate else 'grpc'}://{host}:{self._door.port}"

    async def start(self) -> None:
        if (address := self._settings.grpc_address) is None:
            return
        missing = [name for name in _PACKAGES if find_spec(name) is None]
        if missing:
            self._unless_asked_for(
                f"{missing[0]} is not installed", "install muster[grpc], or set MUSTER_GRPC_LISTEN=none"
            )
            return
        door = GrpcDoor(address, _load, self._open)
        try:
            await door.start()
        except OSError as error:
            problem = f"cannot listen on {self._settings.grpc_listen} for gRPC: {error.strerror or error}"
            self._unless_asked_for(
                problem, "stop what uses that port, or set MUSTER_GRPC_LISTEN to another, or to none"
            )
        else:
            self._door = door
            log.info("grpc_started", url=self.url)

    async def stop(self) -> None:
        await self._presence.stop()
        if self._server is not None:
            await self._server.stop()
        if self._door is not None:
            await self._door.stop()

    async def _open(self, port: int) -> None:
        host, _ = self._settings.grpc_address or ("", 0)
        server = self._made((host, port))
        await server.start()
        self._server = server

    def _made(self, address: tuple[str, int]) -> "GrpcServer":
        from muster.links.grpc import control_side  # noqa: PLC0415 - an extra, and large: only if it is spoken

        settings = self._settings
        certificate = self._certificate
        return control_side.GrpcServer(
            address,
            control_side.FleetHooks(links=self._admitted, nodes=self._viewed, stream_ended=self._presence.ended),
            self._clock,
            system_rng(),
            tls=(lambda: certificate.pem) if certificate else None,
            limits=control_side.GrpcLimits(
                stream_age_s=settings.grpc_connection_age_s,
                body_bytes_max=settings.request_bytes_max,
                connections_max=settings.connections_max,
            ),
        )

    def _admitted(self, shown: str | None) -> tuple[NodeLink, JobLink]:
        """Look at the token when it is shown; each call looks again, so that what was revoked counts no more."""
        token = (shown or "").encode()
        admit = partial(self._access.admit, token)
        admit(Right.JOIN if is_join_token(shown or "") else Right.SPEAK)
        link = GuardedLink(admit, *self._ends, self._access)
        return link, link

    def _viewed(self, shown: str | None) -> Sequence[Node]:
        self._access.admit((shown or "").encode(), Right.VIEW)
        return self._fleet.nodes()

    def _unless_asked_for(self, problem: str, next_step: str) -> None:
        if self._settings.grpc_listen != Settings().grpc_listen:
            raise SetupError(problem, next_step=next_step)
        log.warning("no_grpc", reason=problem, next_step=next_step)


def _load() -> None:
    import_module("muster.links.grpc.control_side")
