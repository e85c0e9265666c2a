"""Where agents' gRPC links end: the service muster.v1.AgentControl, with health and reflection."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from msgspec import Struct

from muster.clock import Clock, Rng
from muster.domain.node import Node
from muster.errors import MusterError
from muster.ids import NodeId
from muster.links.grpc.agent_control_pb2 import (
    Call,
    FleetStatusReply,
    FleetStatusRequest,
    HeartbeatReply,
    HeartbeatRequest,
    RegisterReply,
    RegisterRequest,
    Reply,
)
from muster.links.grpc.messages import fleet_status, heartbeat_of, registration_of
from muster.links.grpc.service import CONNECTION_OPTIONS, FRAME_BYTES_MAX, SERVICE
from muster.links.grpc.statuses import code_of
from muster.links.grpc.stream import AgentStream, Context
from muster.ports import JobLink, NodeLink

log = structlog.get_logger()

AnyContext = grpc.aio.ServicerContext[Any, Any]

_AGE_JITTER = 0.1  # streams that began together do not all end together
_GRACE_S = 2.0
_PING_EVERY_S = 20
_PING_TIMEOUT_S = 10
_PINGS_TAKEN_EVERY_S = 5


Pem = tuple[bytes, bytes]  # certificate with its chain, and its key


class GrpcLimits(Struct, frozen=True, kw_only=True):
    stream_age_s: float = 1800.0
    body_bytes_max: int = 32 * 1024 * 1024
    connections_max: int = 20_000


class FleetHooks(Struct, frozen=True, kw_only=True):
    """Where calls end. `links` and `nodes` are given the token shown; they raise Unauthorized or Forbidden."""

    links: Callable[[str | None], tuple[NodeLink, JobLink]]
    nodes: Callable[[str | None], Sequence[Node]]
    stream_ended: Callable[[NodeId], None]


class GrpcServer:
    """A Lifecycle. `start` raises OSError when the address cannot be had.

    `tls` is asked with each new connection: what it tells then is shown.
    """

    def __init__(
        self,
        address: tuple[str, int],
        hooks: FleetHooks,
        clock: Clock,
        rng: Rng,
        *,
        tls: Callable[[], Pem] | None = None,
        limits: GrpcLimits | None = None,
    ) -> None:
        self._address = address
        self._hooks = hooks
        self._clock = clock
        self._rng = rng
        self._tls = tls
        self._limits = limits or GrpcLimits()
        self._stopping = asyncio.Event()
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self.port = 0

    async def start(self) -> None:
        _check_free(self._address)
        server = grpc.aio.server(options=self._options(), maximum_concurrent_rpcs=self._limits.connections_max)
        self._server = server
        server.add_generic_rpc_handlers((self._handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        host, port = self._address
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if self._tls is None:
            self.port = server.add_insecure_port(target)
        else:
            self.port = server.add_secure_port(target, _credentials(self._tls))
        await server.start()

    async def stop(self) -> None:
        """End all streams in order; their agents look for us, or another, again."""
        self._stopping.set()
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(_GRACE_S)
            self._server = None

    def _options(self) -> list[tuple[str, int]]:
        age_ms, grace_ms = round(self._limits.stream_age_s * 1000), round(_GRACE_S * 1000)
        return [
            ("grpc.so_reuseport", 0),  # or a second server would take half of our agents, unseen
            ("grpc.max_receive_message_length", max(FRAME_BYTES_MAX, self._limits.body_bytes_max)),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_connection_age_ms", age_ms),
            ("grpc.max_connection_age_grace_ms", grace_ms),
            ("grpc.keepalive_time_ms", _PING_EVERY_S * 1000),
            ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_S * 1000),
            ("grpc.http2.ping_timeout_ms", _PING_TIMEOUT_S * 1000),  # without it the one above waits for a minute
            *CONNECTION_OPTIONS,
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", _PINGS_TAKEN_EVERY_S * 1000),
        ]

    def _handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Connect": grpc.stream_stream_rpc_method_handler(
                    self._connect, request_deserializer=Call.FromString, response_serializer=Reply.SerializeToString
                ),
                "Register": _single(RegisterRequest, self._register),
                "Heartbeat": _single(HeartbeatRequest, self._heartbeat),
                "GetFleetStatus": _single(FleetStatusRequest, self._fleet_status),
            },
        )

    async def _connect(self, _: object, context: Context) -> None:
        try:
            nodes, jobs = self._hooks.links(_token(context))
        except MusterError as error:
            await context.abort(code_of(error), error.message)
        stream = AgentStream(context, nodes, jobs, body_bytes_max=self._limits.body_bytes_max)
        age_s = self._limits.stream_age_s * (1 - _AGE_JITTER * self._rng.random())
        try:
            await stream.run(age_s, self._stopping)
        finally:
            if stream.node_id is not None and not self._stopping.is_set():
                self._hooks.stream_ended(stream.node_id)

    async def _register(self, request: RegisterRequest, token: str | None) -> RegisterReply:
        nodes, _ = self._hooks.links(token)
        reply = await nodes.register(registration_of(request))
        return RegisterReply(node_id=reply.node_id, next_heartbeat_ms=reply.next_heartbeat_ms)

    async def _heartbeat(self, request: HeartbeatRequest, token: str | None) -> HeartbeatReply:
        nodes, _ = self._hooks.links(token)
        reply = await nodes.heartbeat(heartbeat_of(request, self._clock.now_ms()))
        return HeartbeatReply(
            next_heartbeat_ms=reply.next_heartbeat_ms,
            known=reply.known,
            superseded=reply.superseded,
            draining=reply.draining,
        )

    async def _fleet_status(self, request: FleetStatusRequest, token: str | None) -> FleetStatusReply:
        return fleet_status(self._hooks.nodes(token), request.node_type)


def _single(kind: Any, work: Callable[[Any, str | None], Awaitable[Any]]) -> "grpc.RpcMethodHandler[Any, Any]":
    """Make the handler of a call that has one message and one reply."""

    async def handle(request: Any, context: AnyContext) -> Any:
        try:
            return await work(request, _token(context))
        except MusterError as error:
            await context.abort(code_of(error), error.message)
        except Exception:
            log.exception("call_failed", call=kind.DESCRIPTOR.name)
            await context.abort(
                grpc.StatusCode.INTERNAL, "something broke in the control plane; its log has the details"
            )

    return grpc.unary_unary_rpc_method_handler(
        handle, request_deserializer=kind.FromString, response_serializer=lambda reply: reply.SerializeToString()
    )


def _token(context: AnyContext) -> str | None:
    shown = next((value for key, value in context.invocation_metadata() or () if key == "authorization"), "")
    scheme, _, token = str(shown).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _check_free(address: tuple[str, int]) -> None:
    """Raise OSError in the system's words; gRPC itself would only say that it failed."""
    host, port = address
    family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(target)


def _credentials(tls: Callable[[], Pem]) -> grpc.ServerCredentials:
    shown = tls()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        present = tls()
        if present == shown:
            return None
        shown = present
        return _configuration(present)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown),
        renewed,  # type: ignore[arg-type] # its stub does not know that None means: as before
    )


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    certificate, key = pem
    return grpc.ssl_server_certificate_configuration([(key, certificate)])
