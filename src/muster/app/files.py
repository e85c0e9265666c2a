"""Where files are kept, and how an agent reaches them."""

import ssl
from urllib.parse import urlsplit

import aiohttp

from muster.access.tokens import is_join_token
from muster.agent.key import NodeKeyFile
from muster.errors import SetupError
from muster.ids import NodeId
from muster.links.http.files import HttpFiles
from muster.ports import BlobStore, FileLink
from muster.settings import Settings, parse_address
from muster.stores.files.directory import DirectoryFiles
from muster.system import system_rng
from muster.tls import trusting

_FOLDER = "files"


def open_file_store(settings: Settings) -> BlobStore:
    """Return the directory below the data directory, or the bucket that is named."""
    if not settings.file_store_url:
        return DirectoryFiles(settings.data_path / _FOLDER)
    try:
        from muster.stores.files.s3 import S3Files  # noqa: PLC0415 - an extra, loaded where it is used
    except ImportError as error:
        raise SetupError(
            f"file_store_url names a bucket, but {error.name} is not installed", next_step="pip install 'muster[cloud]'"
        ) from None
    parts = urlsplit(settings.file_store_url)
    prefix = parts.path.strip("/")
    return S3Files(
        parts.netloc,
        f"{prefix}/" if prefix else "",
        region=settings.cloud_region,
        endpoint_url=settings.file_store_endpoint_url,
    )


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
