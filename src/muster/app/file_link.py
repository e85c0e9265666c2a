"""How an agent reaches the files that the control plane keeps."""

import ssl
from urllib.parse import urlsplit

import aiohttp

from muster.access.tokens import is_join_token
from muster.agent.key import NodeKeyFile
from muster.ids import NodeId
from muster.links.http.files import HttpFiles
from muster.ports import FileLink
from muster.settings import Settings, parse_address
from muster.system import system_rng
from muster.tls import trusting


def open_file_link(settings: Settings, node_id: NodeId, control_plane: str, session: aiohttp.ClientSession) -> FileLink:
    url = files_url(settings, control_plane)
    tls: ssl.SSLContext | None = trusting(settings.ca_file) if url.startswith("https://") else None

    def token() -> str | None:
        """Return what the agent's link shows: after joining that is the node's own."""
        if settings.token and not is_join_token(settings.token):
            return settings.token
        return NodeKeyFile(settings.data_path, node_id, system_rng()).token

    return HttpFiles(url, session, token, tls=tls)


def files_url(settings: Settings, control_plane: str) -> str:
    """Return the HTTP port of the control plane: what is set, what the link uses, or the usual one beside gRPC."""
    if settings.files_url:
        return settings.files_url
    parts = urlsplit(control_plane)
    if parts.scheme in {"http", "https"}:
        return control_plane
    if parts.scheme in {"grpc", "grpcs"} and parts.hostname:
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        _, port = parse_address(Settings().listen)
        return f"{'https' if parts.scheme == 'grpcs' else 'http'}://{host}:{port}"
    return Settings().control_plane
