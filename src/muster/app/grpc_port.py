"""The gRPC port of the control plane, where it is wanted and can be had."""

from collections.abc import Sequence
from functools import partial
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
from muster.links.guarded import GuardedLink
from muster.ports import JobLink, NodeLink
from muster.settings import Settings
from muster.system import system_rng
from muster.tls import Certificate

if TYPE_CHECKING:
    from muster.links.grpc.control_side import GrpcServer

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
        self._server: GrpcServer | None = None

    @property
    def url(self) -> str | None:
        address = self._settings.grpc_address
        if self._server is None or address is None:
            return None
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{'grpcs' if self._certificate else 'grpc'}://{host}:{self._server.port}"

    async def start(self) -> None:
        if (address := self._settings.grpc_address) is None:
            return
        try:
            server = self._made(address)
            await server.start()
        except ImportError as error:
            self._unless_asked_for(
                f"{error.name} is not installed", "install muster[grpc], or set MUSTER_GRPC_LISTEN=none"
            )
        except OSError as error:
            problem = f"cannot listen on {self._settings.grpc_listen} for gRPC: {error.strerror or error}"
            self._unless_asked_for(
                problem, "stop what uses that port, or set MUSTER_GRPC_LISTEN to another, or to none"
            )
        else:
            self._server = server
            log.info("grpc_started", url=self.url)

    async def stop(self) -> None:
        await self._presence.stop()
        if self._server is not None:
            await self._server.stop()

    def _made(self, address: tuple[str, int]) -> "GrpcServer":
        from muster.links.grpc import control_side  # noqa: PLC0415 - an extra, loaded where it is wanted

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
