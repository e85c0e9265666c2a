"""What a caller may ask by headers, besides the model: of the worker, and how much it matters."""

from muster.errors import InvalidInput
from muster.ids import NodeId
from muster.placement.wish import Wish

_POOL, _NODE, _LABELS, _MEMORY = b"x-muster-pool", b"x-muster-node", b"x-muster-labels", b"x-muster-min-vram-mb"
_PRIORITY = b"x-priority"
_OF_THE_WORKER = frozenset({_POOL, _NODE, _LABELS, _MEMORY})
PINS = _OF_THE_WORKER | {_PRIORITY}

PRIORITY_MAX = 100
INTERACTIVE = 50  # somebody waits for the answer: what is not said otherwise
_DIGITS_MAX = 3
_NAMED = {b"interactive": INTERACTIVE, b"batch": 0}


def pinned(headers: dict[bytes, bytes]) -> Wish | None:
    """Return what the headers ask for; None for nearly every caller. InvalidInput names the header."""
    if PINS.isdisjoint(headers):
        return None
    priority_asked(headers)
    if _OF_THE_WORKER.isdisjoint(headers):
        return None
    return Wish(
        pool=_text(headers, _POOL),
        node_id=NodeId(node) if (node := _text(headers, _NODE)) else None,
        labels=_labels(_text(headers, _LABELS)),
        min_memory_mb=_memory_mb(_text(headers, _MEMORY)),
    )


def said_of_the_worker(headers: dict[bytes, bytes]) -> tuple[bytes | None, ...]:
    """Return what tells those apart who ask for different workers."""
    return tuple(headers.get(name) for name in sorted(_OF_THE_WORKER))


def priority_asked(headers: dict[bytes, bytes]) -> int | None:
    """Return what X-Priority says; None where it is not sent."""
    value = headers.get(_PRIORITY, b"").strip().lower()
    if not value:
        return None
    if value in _NAMED:
        return _NAMED[value]
    if not value.isdigit() or len(value) > _DIGITS_MAX or int(value) > PRIORITY_MAX:
        shown = value.decode("latin-1")
        raise InvalidInput(f"X-Priority must be interactive, batch or 0 to 100, got {shown!r}", field="X-Priority")
    return int(value)


def _text(headers: dict[bytes, bytes], name: bytes) -> str | None:
    return headers[name].decode("latin-1").strip() or None if name in headers else None


def _labels(text: str | None) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in (text or "").split(",") if pair.strip()]
    for key, separator, value in pairs:
        if not separator or not key.strip() or not value.strip():
            raise InvalidInput(
                f"X-Muster-Labels must be key=value pairs with commas, got {text!r}", field="X-Muster-Labels"
            )
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory_mb(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidInput(
            f"X-Muster-Min-Vram-Mb must be a whole number of MB, got {text!r}", field="X-Muster-Min-Vram-Mb"
        )
    return int(text[:18])
