"""Tickets by which one node gets an artifact from another: signed by the control plane, checked without asking it."""

import hmac
from hashlib import sha256

LIFE_S = 600.0
KEY_BITS = 160


def issue(key: str, digest: str, now_ms: int, life_s: float = LIFE_S) -> str:
    """Return a ticket for one artifact of the node that has this key."""
    until_ms = now_ms + round(life_s * 1000)
    return f"{until_ms}.{_signature(key, digest, until_ms)}"


def is_good(key: str, ticket: str, digest: str, now_ms: int) -> bool:
    until, _, signature = ticket.partition(".")
    if not until.isascii() or not until.isdecimal() or not signature.isascii():
        return False
    until_ms = int(until[:16])
    return now_ms <= until_ms and hmac.compare_digest(signature, _signature(key, digest, until_ms))


def _signature(key: str, digest: str, until_ms: int) -> str:
    return hmac.new(key.encode(), f"{digest} {until_ms}".encode(), sha256).hexdigest()
