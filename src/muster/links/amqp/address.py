"""Where the broker is: the URL with its vhost, its certificates, and a form without the password for people."""

import ssl

from msgspec import Struct
from yarl import URL

from muster.errors import SetupError
from muster.links.amqp.topology import VHOST
from muster.tls import trusting

_SCHEMES = ("amqp", "amqps")
_HEARTBEAT_S = 5


class BrokerAddress(Struct, frozen=True):
    url: URL
    tls: ssl.SSLContext | None

    @property
    def vhost(self) -> str:
        return self.url.path.removeprefix("/")

    @property
    def user(self) -> str:
        return self.url.user or "guest"

    def __str__(self) -> str:
        """Name the broker without its password, and without the query, which may hold secrets as well."""
        shown = self.url.with_query(None)
        return str(shown.with_password("***") if shown.password else shown)


def broker_address(url: str, ca_file: str = "") -> BrokerAddress:
    """Parse; without a path the vhost is `agents`. `ca_file` is trusted besides what the system trusts."""
    try:
        parsed = URL(url)
        port = parsed.port
    except ValueError as error:
        raise _unfit(f"is no URL: {error}") from None
    if parsed.scheme not in _SCHEMES:
        raise _unfit(f"must begin with amqp:// or amqps://, got {parsed.scheme or 'no scheme'}")
    if not parsed.host:
        raise _unfit("names no host")
    if parsed.path in {"", "/"}:
        parsed = parsed.with_path(f"/{VHOST}")
    parsed = parsed.with_port(port or (5671 if parsed.scheme == "amqps" else 5672))
    return BrokerAddress(
        parsed.update_query(heartbeat=str(_HEARTBEAT_S)), trusting(ca_file) if parsed.scheme == "amqps" else None
    )


def _unfit(problem: str) -> SetupError:
    return SetupError(f"rabbitmq_url {problem}", next_step="try MUSTER_RABBITMQ_URL=amqp://USER:PASSWORD@HOST:5672")
