"""What the gateway reads in the head of a request."""

import re
from collections.abc import Mapping

from msgspec import Struct

from muster.gateway.http.pins import PINS

# A caller's own id is taken over if it is one that is safe to repeat in headers and logs.
SAFE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
# Of the caller's headers an engine gets those that begin so: no credentials, no cookies, and no accept-encoding, as
# what is compressed can be neither translated nor ended with an error.
_FORWARDED = (b"x-", b"traceparent", b"tracestate", b"anthropic-")
_USUAL = (
    frozenset(
        {
            b"accept",
            b"accept-encoding",
            b"accept-language",
            b"authorization",
            b"connection",
            b"content-length",
            b"content-type",
            b"cookie",
            b"host",
            b"user-agent",
            b"x-api-key",
            b"x-auth-token",
            b"x-correlation-id",  # ours goes instead
        }
    )
    | PINS
)  # said to us


class Request(Struct, kw_only=True, gc=False):
    """A request whose body has come whole."""

    method: bytes
    url: bytes
    headers: dict[bytes, bytes]  # names in lower case
    body: bytes
    http_1_0: bool
    keep_alive: bool
    correlation_id: bytes
    token: bytes | None = None  # that the caller shows


def forwarded(headers: dict[bytes, bytes]) -> bytes:
    """Return the header lines for the engine; mostly there is none, which a set tells at once."""
    if _USUAL.issuperset(headers):
        return b""
    names = sorted(headers.keys() - _USUAL)
    return b"".join([b"%b: %b\r\n" % (name, headers[name]) for name in names if name.startswith(_FORWARDED)])


def bearer_token(headers: Mapping[bytes, bytes]) -> bytes | None:
    """Return the token, which Anthropic's clients send in a header of its own."""
    value = headers.get(b"authorization")
    if value is None:
        return headers.get(b"x-api-key")
    return value[7:].strip() if value[:7].lower() == b"bearer " else None
