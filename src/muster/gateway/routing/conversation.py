"""Which conversation a request belongs to: the worker that had it last has read most of its text already.

Whoever names it is believed; else texts that begin with the same two messages (mostly the system's and the first of the
user) are taken for one. A short text is read anew faster than it is worth looking at: there only headers count.
"""

from hashlib import blake2b

import msgspec
from msgspec import Raw, Struct

from muster.gateway.dialects.call import Call

# Of a client's own session, of LiteLLM, of Open WebUI; named by whoever stands between it and us.
HEADERS = frozenset({b"x-session-id", b"x-litellm-session-id", b"x-openwebui-chat-id"})
WORTH_BYTES = 2_048
_PREFIX_BYTES = 4_096
_OPENING = 2
_DIGEST_BYTES = 7
_NOTHING = Raw(b"")


class _Hints(Struct):
    prompt_cache_key: Raw = _NOTHING
    session_id: Raw = _NOTHING
    user: Raw = _NOTHING
    messages: list[Raw] | None = None
    prompt: Raw = _NOTHING


_hints = msgspec.json.Decoder(_Hints)
_EMPTY = frozenset({b"", b"null", b'""'})


def conversation(call: Call, headers: dict[bytes, bytes]) -> int | None:
    """Return a number that is the same for requests of one conversation; None where it would not matter."""
    if not HEADERS.isdisjoint(headers):
        for name in sorted(HEADERS):
            if headers.get(name):
                return _number(call.model, name, headers[name])
    body = call.body
    if len(body) < WORTH_BYTES:
        return None
    try:
        hints = _hints.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):  # a caller's mistake in what only we look at
        return None
    for named in (hints.prompt_cache_key, hints.session_id, hints.user):
        if bytes(named) not in _EMPTY:
            return _number(call.model, b"body", bytes(named))
    opening = b"".join(map(bytes, hints.messages[:_OPENING])) if hints.messages else bytes(hints.prompt)
    return _number(call.model, b"text", opening[:_PREFIX_BYTES]) if opening not in _EMPTY else None


def _number(model: str, kind: bytes, value: bytes) -> int:
    return int.from_bytes(blake2b(b"\0".join((model.encode(), kind, value)), digest_size=_DIGEST_BYTES).digest())
