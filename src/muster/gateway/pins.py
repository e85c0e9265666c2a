"""What a caller may ask of the worker by headers, besides the model."""

from muster.errors import InvalidInput
from muster.ids import NodeId
from muster.placement.wish import Wish

_POOL, _NODE, _LABELS, _MEMORY = b"x-muster-pool", b"x-muster-node", b"x-muster-labels", b"x-muster-min-vram-mb"
PINS = frozenset({_POOL, _NODE, _LABELS, _MEMORY})


def pinned(headers: dict[bytes, bytes]) -> Wish | None:
    """Return what the headers ask for; None for nearly every caller. InvalidInput names the header."""
    if PINS.isdisjoint(headers):
        return None
    return Wish(
        pool=_text(headers, _POOL),
        node_id=NodeId(node) if (node := _text(headers, _NODE)) else None,
        labels=_labels(_text(headers, _LABELS)),
        min_memory_mb=_memory_mb(_text(headers, _MEMORY)),
    )


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
