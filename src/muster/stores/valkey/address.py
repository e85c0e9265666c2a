"""Where a server is, read from its URL."""

import ssl
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Struct

from muster.errors import SetupError

_PLAIN = ("valkey", "redis")
_SECURE = ("valkeys", "rediss")
_PORT = 6379
_NEXT_STEP = "try valkey://127.0.0.1:6379"


class Address(Struct, frozen=True, kw_only=True):
    host: str = ""
    port: int = _PORT
    path: str = ""  # of a unix socket, in place of host and port
    user: str = ""
    password: str = ""
    database: int = 0
    tls: bool = False
    ca_file: str = ""

    @property
    def shown(self) -> str:
        """How to speak of it: without secrets."""
        return self.path or f"{self.host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.ca_file or None) if self.tls else None


def parse_address(url: str) -> Address:
    """Read a URL or raise SetupError.

    `valkey://[user:password@]host[:port][/database]` (redis:// is the same; with TLS valkeys:// or rediss://, and
    then `?ssl_ca_certs=file`) or `unix:///path[?db=number&username=name&password=word]`.
    """
    try:
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
        database = query.pop("db", "") or (parts.path.strip("/") if parts.scheme != "unix" else "") or "0"
        address = Address(
            host=parts.hostname or "",
            port=parts.port or _PORT,
            path=unquote(parts.path) if parts.scheme == "unix" else "",
            user=unquote(parts.username or query.pop("username", "")),
            password=unquote(parts.password or "") or query.pop("password", ""),
            database=int(database),
            tls=parts.scheme in _SECURE,
            ca_file=query.pop("ssl_ca_certs", ""),
        )
    except ValueError as error:
        raise SetupError(f"the store's URL does not fit: {error}", next_step=_NEXT_STEP) from None
    if parts.scheme not in (*_PLAIN, *_SECURE, "unix"):
        raise SetupError(f"the store's URL has an unknown scheme {parts.scheme!r}", next_step=_NEXT_STEP)
    if not (address.path if parts.scheme == "unix" else address.host):
        raise SetupError("the store's URL names no host", next_step=_NEXT_STEP)
    if query:
        raise SetupError(f"the store's URL has an unknown option {min(query)!r}", next_step="leave it out")
    return address
