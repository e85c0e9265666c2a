"""Which link an agent uses: what the setting `link` names, else what the URL of its control plane tells."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp

from muster.agent.backoff import Backoff
from muster.errors import SetupError
from muster.links.http.agent_side import HttpLink
from muster.ports import JobLink, Lifecycle, NodeLink
from muster.settings import Settings
from muster.system import system_rng

_KINDS = {"http": "http", "https": "http", "grpc": "grpc", "grpcs": "grpc"}  # by scheme
_RETRY_S_MAX = 30.0


class Links(NodeLink, JobLink, Protocol):
    """Both ways of an agent in one."""


class AgentLink(Links, Lifecycle, Protocol):
    """A way to a control plane elsewhere."""


def open_link(
    settings: Settings,
    control_plane: str,
    session: aiohttp.ClientSession,
    heartbeat_interval_s: float,
    on_open: Callable[[], None],
) -> AgentLink:
    """Make the link, to be started; one that stays open calls `on_open` each time that it has opened again."""
    token = settings.token or None
    if link_kind(settings.link, control_plane) == "grpc":
        return _grpc_link(settings, grpc_url(control_plane), token, heartbeat_interval_s, on_open)
    return HttpLink(control_plane, session, token)


def link_kind(link: str, control_plane: str) -> str:
    kind = _KINDS.get(urlsplit(control_plane).scheme)
    if kind is None:
        raise SetupError(
            f"control_plane is {control_plane!r}, to which there is no link",
            next_step=f"begin it with {', '.join(f'{scheme}://' for scheme in _KINDS)}",
        )
    return link or kind


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
