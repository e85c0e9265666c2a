"""Which link an agent uses: what the setting `link` names, else what the URL of its control plane tells."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp

from muster.access.tokens import is_join_token
from muster.agent.backoff import Backoff
from muster.agent.key import NodeKeyFile
from muster.errors import SetupError
from muster.ids import NodeId
from muster.links.calls import COMMANDS, DEREGISTER, EVENTS, HEARTBEAT, REGISTER, REPORTS, Call, CallingLink, M, R
from muster.links.http.agent_side import HttpLink
from muster.links.joining import JoiningLink
from muster.ports import JobLink, Lifecycle, NodeLink
from muster.settings import Settings
from muster.system import SystemClock, system_rng
from muster.tls import trusting

_KINDS = {  # by scheme
    "http": "http",
    "https": "http",
    "grpc": "grpc",
    "grpcs": "grpc",
    "amqp": "amqp",
    "amqps": "amqp",
}
_RETRY_S_MAX = 30.0


class Links(NodeLink, JobLink, Protocol):
    """Both ways of an agent in one."""


class AgentLink(Links, Lifecycle, Protocol):
    """A way to a control plane elsewhere."""


def open_link(
    settings: Settings,
    node_id: NodeId,
    control_plane: str,
    session: aiohttp.ClientSession,
    heartbeat_interval_s: float,
    on_open: Callable[[], None],
) -> AgentLink:
    """Make the link, to be started; one that stays open calls `on_open` each time that it has opened again."""

    def showing(token: str | None) -> AgentLink:
        match link_kind(settings, control_plane):
            case "grpc":
                return _grpc_link(settings, grpc_url(control_plane), token, heartbeat_interval_s, on_open)
            case "amqp":
                return _amqp_link(settings, node_id, control_plane, session, token, on_open)
        return HttpLink(control_plane, session, token, tls=_trust(settings, control_plane))

    key = NodeKeyFile(settings.data_path, node_id, system_rng())
    if is_join_token(settings.token) or (not settings.token and key.token is not None):
        return JoiningLink(showing, node_id, key, settings.token or None)
    return showing(settings.token or None)


def link_kind(settings: Settings, control_plane: str) -> str:
    """Return http, grpc or amqp: what is set, else what the scheme says, unless a broker is all that is named."""
    kind = _KINDS.get(urlsplit(control_plane).scheme)
    if kind is None:
        raise SetupError(
            f"control_plane is {control_plane!r}, to which there is no link",
            next_step=f"begin it with {', '.join(f'{scheme}://' for scheme in _KINDS)}",
        )
    if settings.link == "http" and kind != "http":
        raise SetupError(
            f"the link is http, but control_plane is {control_plane}", next_step="begin it with http://, or unset link"
        )
    if settings.rabbitmq_url and control_plane == Settings().control_plane:
        kind = "amqp"
    return settings.link or kind


def grpc_url(control_plane: str) -> str:
    """Return where gRPC is beside an HTTP port that was named: same host, usual port, TLS where HTTP has it."""
    parts = urlsplit(control_plane)
    if parts.scheme in {"grpc", "grpcs"} or not parts.hostname:
        return control_plane
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{'grpcs' if parts.scheme == 'https' else 'grpc'}://{host}"


def _grpc_link(
    settings: Settings, url: str, token: str | None, heartbeat_interval_s: float, on_open: Callable[[], None]
) -> AgentLink:
    try:
        from muster.links.grpc.agent_side import GrpcLink  # noqa: PLC0415 - an extra, loaded where it is used
    except ImportError as error:
        raise SetupError(
            f"the link is grpc, but {error.name} is not installed", next_step="pip install 'muster[grpc]'"
        ) from None
    # Trying more seldom than a heartbeat is due would spare the control plane nothing.
    backoff = Backoff(max_s=min(_RETRY_S_MAX, max(1.0, heartbeat_interval_s)))
    rng = system_rng()
    return GrpcLink(
        url,
        token,
        pause_s=lambda failures: backoff.delay_s(failures, rng),
        on_open=on_open,
        trusted_pem=_trusted_pem(settings.ca_file),
    )


def _amqp_link(
    settings: Settings,
    node_id: NodeId,
    control_plane: str,
    session: aiohttp.ClientSession,
    token: str | None,
    on_open: Callable[[], None],
) -> AgentLink:
    try:
        from muster.links.amqp.address import broker_address  # noqa: PLC0415 - an extra, loaded where it is used
        from muster.links.amqp.agent_side import AmqpLink  # noqa: PLC0415 - as above
    except ImportError as error:
        raise SetupError(
            f"the link is amqp, but {error.name} is not installed", next_step="pip install 'muster[amqp]'"
        ) from None
    kind = _KINDS[urlsplit(control_plane).scheme]
    broker = broker_address(control_plane if kind == "amqp" else settings.rabbitmq_url, settings.ca_file)
    link = AmqpLink(broker, node_id, SystemClock(), system_rng(), on_open=on_open)
    direct = control_plane if kind == "http" else Settings().control_plane
    return _ByBroker(link, link, HttpLink(direct, session, token, tls=_trust(settings, direct)))


class _ByBroker(CallingLink):
    """The node's own calls over the broker, all others to the control plane itself: a broker carries no jobs."""

    _CALLS = frozenset(call.name for call in (REGISTER, HEARTBEAT, EVENTS, DEREGISTER, COMMANDS, REPORTS))

    def __init__(self, node: NodeLink, broker: Lifecycle, direct: HttpLink) -> None:
        self._node = node
        self._broker = broker
        self._direct = direct

    async def start(self) -> None:
        await self._broker.start()

    async def stop(self) -> None:
        await self._broker.stop()

    async def _call(self, call: Call[M, R], message: M) -> R:
        nodes = self._node if call.name in self._CALLS else self._direct
        return await call.deliver(nodes, self._direct, message)


def _trust(settings: Settings, control_plane: str) -> ssl.SSLContext | None:
    return trusting(settings.ca_file) if urlsplit(control_plane).scheme == "https" else None


def _trusted_pem(ca_file: str) -> bytes | None:
    if not ca_file:
        return None
    system = ssl.get_default_verify_paths().cafile
    try:
        return b"\n".join(Path(path).read_bytes() for path in (system, ca_file) if path)
    except OSError as error:
        raise SetupError(
            f"cannot read ca_file {ca_file}: {error.strerror}", next_step="check the path and its rights"
        ) from None
