"""What ComfyUI tells of one prompt over its WebSocket: how far it is, what it looks like, and when it is over."""

from collections import deque
from typing import Any

import msgspec
from msgspec import Struct

from muster.connectors.comfyui.payload import Graph
from muster.domain.job import Progress

_OVER = frozenset({"execution_success", "execution_error", "execution_interrupted"})
_PREVIEW = 1
_PREVIEW_WITH_METADATA = 4
_ENDINGS = {1: "jpg", 2: "png"}
_HEAD_BYTES = 8
_EARLY_MAX = 64


class Preview(Struct, frozen=True):
    name: str
    data: bytes


class Telling:
    """Follows one prompt; `over` says that its end was told, `heard` counts what was told of it."""

    def __init__(self, graph: Graph) -> None:
        self._classes = {key: str(node.get("class_type")) for key, node in graph.items()}
        self._done: set[str] = set()
        self._node: str | None = None
        self._within = 0.0  # of the node that runs
        self._steps = ""
        self._fraction = 0.0
        self._early: deque[str] = deque(maxlen=_EARLY_MAX)
        self.prompt_id: str | None = None
        self.heard = 0
        self.over = False

    def begin(self, prompt_id: str) -> None:
        """Say which prompt it is; what was told before its id came back is heard now."""
        self.prompt_id = prompt_id
        while self._early:
            self.take(self._early.popleft())

    def take(self, text: str) -> bool:
        """Take a message and tell whether it was about this prompt."""
        if self.prompt_id is None:
            self._early.append(text)
            return False
        try:
            message = msgspec.json.decode(text)
            kind, data = message["type"], message["data"]
        except (msgspec.DecodeError, KeyError, TypeError):
            return False
        if not isinstance(data, dict) or data.get("prompt_id") != self.prompt_id:
            return False
        self.heard += 1
        self._hear(kind, data)
        return True

    def progress(self) -> Progress:
        total = len(self._classes)
        current = self._within if self._node else 0.0
        self._fraction = max(self._fraction, min(1.0, (len(self._done) + current) / total))
        if self._node is None:
            return Progress(fraction=self._fraction)
        name = self._classes.get(self._node, "node")
        return Progress(fraction=self._fraction, message=f"{name} (node {self._node}){self._steps}")

    def _hear(self, kind: str, data: dict[str, Any]) -> None:
        match kind, data:
            case "execution_cached", {"nodes": list(nodes)}:
                self._done |= {str(node) for node in nodes}
            case "executing", {"node": None}:
                self.over = True
            case "executing", {"node": node}:
                self._enter(str(node))
            case "progress", {"value": int() | float() as value, "max": int() | float() as most} if most > 0:
                self._enter(str(data.get("node") or self._node or ""))
                self._within, self._steps = min(1.0, value / most), f": {value:g} of {most:g}"
            case "executed", {"node": node}:
                self._done.add(str(node))
            case _:
                self.over |= kind in _OVER

    def _enter(self, node: str) -> None:
        if node == self._node:
            return
        if self._node is not None:
            self._done.add(self._node)
        self._node, self._within, self._steps = node, 0.0, ""
        self._done.discard(node)


def read_preview(data: bytes) -> Preview | None:
    """Return the picture in a binary message; None where it is something else."""
    kind, second = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
    if kind == _PREVIEW and second in _ENDINGS:
        return Preview(f"preview.{_ENDINGS[second]}", data[_HEAD_BYTES:])
    if kind == _PREVIEW_WITH_METADATA and second <= len(data) - _HEAD_BYTES:
        picture = data[_HEAD_BYTES + second :]
        return Preview("preview.png" if picture.startswith(b"\x89PNG") else "preview.jpg", picture)
    return None
