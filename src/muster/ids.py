"""Names of things. Ids sort by time of making, so equal scores in a sorted set keep first-come order."""

import re
from typing import NewType

from muster.clock import Rng
from muster.errors import InvalidInput

NodeId = NewType("NodeId", str)
WorkerId = NewType("WorkerId", str)
SessionId = NewType("SessionId", str)
JobId = NewType("JobId", str)
CommandId = NewType("CommandId", str)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z")


def new_id(prefix: str, now_ms: int, rng: Rng) -> str:
    """Return `prefix-` and 20 characters: 9 of time (ms, good for 1,100 years), 11 of chance (55 bits)."""
    return f"{prefix}-{base32(now_ms, 9)}{base32(rng.getrandbits(55), 11)}"


def base32(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        digits.append(_ALPHABET[number & 31])
        number >>= 5
    return "".join(reversed(digits))


def check_name(value: str, field: str) -> str:
    """Accept a name that is safe in keys, paths and topics: 1 to 128 of letters, digits and `._:-`."""
    if not _NAME.match(value):
        raise InvalidInput(
            f"{field} must be 1 to 128 letters, digits or ._:- and start with a letter or digit, got {value!r}",
            field=field,
        )
    return value


def check_node_id(value: str) -> NodeId:
    """Refuse what the systems before us let through: an empty id or `unknown`."""
    if value.strip().lower() in {"", "unknown", "none", "null"}:
        raise InvalidInput(f"node_id must name this machine, got {value!r}", field="node_id")
    return NodeId(check_name(value, "node_id"))


def worker_id(node_id: NodeId, index: int) -> WorkerId:
    return WorkerId(f"{node_id}-worker-{index}")
