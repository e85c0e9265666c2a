"""Tokens: `mst_<id>_<secret>`. The id is no secret; of the secret only its SHA-256 is kept.

A secret is 160 bits of chance, so a plain hash of it can be turned round by nobody; slow hashes are for passwords.
"""

import re
from hashlib import sha256

from msgspec import Struct

from muster.access.allowance import ANYTHING, Allowance, check_allowance
from muster.access.roles import GRANTS, JOINING, Right, Role
from muster.clock import Rng
from muster.errors import InvalidInput
from muster.ids import NodeId, base32, check_name, check_node_id

PREFIX = "mst_"
JOIN_ID_PREFIX = "join"  # so that an agent, and a person, sees what it has been given
NODE_ID_PREFIX = "node"

_ID_BITS, _ID_CHARS = 50, 10
_SECRET_BITS, _SECRET_CHARS = 160, 32
_NODE_DIGEST_CHARS = 24
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")

LIFE_S_MAX = 10 * 366 * 86_400.0
USES_MAX = 100_000
RATE_MAX = 1_000_000.0


class Token(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a token. `node_id`: the only node that it speaks for; `joins`: good for becoming a node only."""

    token_id: str
    name: str
    role: Role
    secret_sha256: str
    created_at_ms: int
    expires_at_ms: int | None = None
    node_id: NodeId | None = None
    requests_per_s: float | None = None  # None: as the setting says; 0: any number
    joins: bool = False
    uses_max: int | None = None  # of a join token: how many nodes may come with it
    allowance: Allowance = ANYTHING

    @property
    def rights(self) -> frozenset[Right]:
        return JOINING if self.joins else GRANTS[self.role]

    def has_expired(self, now_ms: int) -> bool:
        return self.expires_at_ms is not None and now_ms >= self.expires_at_ms


class Wanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token as asked for."""

    name: str
    role: Role
    expires_in_s: float | None = None
    node_id: str | None = None
    requests_per_s: float | None = None
    joins: bool = False
    uses_max: int | None = None
    allowance: Allowance = ANYTHING


class Usage(Struct, frozen=True, kw_only=True):
    """What happened with a token. The time is coarse; `uses` counts the nodes that joined with it."""

    last_used_at_ms: int | None = None
    uses: int = 0


def digest_of(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def new_secret(rng: Rng) -> str:
    return base32(rng.getrandbits(_SECRET_BITS), _SECRET_CHARS)


def spell(token_id: str, secret: str) -> str:
    """Return the token as it is shown, once."""
    return f"{PREFIX}{token_id}_{secret}"


def is_join_token(text: str) -> bool:
    return text.startswith(PREFIX + JOIN_ID_PREFIX)


def check_wanted(wanted: Wanted) -> None:
    """Raise InvalidInput that names the field."""
    check_name(wanted.name, "name")
    _within(wanted.expires_in_s, LIFE_S_MAX, "expires_in_s", "seconds")
    if wanted.requests_per_s != 0:
        _within(wanted.requests_per_s, RATE_MAX, "requests_per_s", "requests per second")
    _within(wanted.uses_max, USES_MAX, "uses_max", "nodes")
    if wanted.node_id is not None:
        check_node_id(wanted.node_id)
    for field, given in (("node_id", wanted.node_id is not None), ("joins", wanted.joins)):
        if given and wanted.role is not Role.AGENT:
            raise InvalidInput(f"{field} is for the role agent, not {wanted.role}", field=field)
    if wanted.joins and wanted.node_id is not None:
        raise InvalidInput("a join token is for nodes that have no name yet: leave node_id out", field="node_id")
    if wanted.uses_max is not None and not wanted.joins:
        raise InvalidInput("uses_max is for join tokens", field="uses_max")
    check_allowance(wanted.allowance, wanted.role)


def _within(value: float | None, most: float, field: str, unit: str) -> None:
    if value is not None and not 0 < value <= most:
        raise InvalidInput(f"{field} must be above 0 and at most {most:g} {unit}, got {value:g}", field=field)


def make(wanted: Wanted, now_ms: int, rng: Rng) -> tuple[Token, str]:
    """Return the record and the token itself."""
    secret = new_secret(rng)
    prefix = JOIN_ID_PREFIX if wanted.joins else ""
    token = Token(
        token_id=prefix + base32(rng.getrandbits(_ID_BITS), _ID_CHARS),
        name=wanted.name,
        role=wanted.role,
        secret_sha256=digest_of(secret),
        created_at_ms=now_ms,
        expires_at_ms=None if wanted.expires_in_s is None else now_ms + round(wanted.expires_in_s * 1000),
        node_id=None if wanted.node_id is None else NodeId(wanted.node_id),
        requests_per_s=wanted.requests_per_s,
        joins=wanted.joins,
        uses_max=(wanted.uses_max or 1) if wanted.joins else None,
        allowance=wanted.allowance,
    )
    return token, spell(token.token_id, secret)


def for_node(node_id: str, secret_sha256: str, joined_with: str, now_ms: int) -> Token:
    """Make the record of a node that joins; its secret was made by itself and never travels.

    The id follows from the node's, so that of two that join under one name the store takes only one.
    """
    node = check_node_id(node_id)
    if not _DIGEST.match(secret_sha256):
        raise InvalidInput("secret_sha256 must be 64 hexadecimal digits in lower case", field="secret_sha256")
    return Token(
        token_id=NODE_ID_PREFIX + sha256(node.encode()).hexdigest()[:_NODE_DIGEST_CHARS],
        name=f"{node[:100]}.{joined_with}",
        role=Role.AGENT,
        secret_sha256=secret_sha256,
        created_at_ms=now_ms,
        node_id=node,
    )
