"""The nodes that the simulated ComfyUI knows, and whether a graph can be run with them. Pure."""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from msgspec import Struct

Json = dict[str, Any]

_BATCH_MAX = 16
_SIZE_MAX = 256  # pixels of a side: the picture stands for one, and is not worth more


class NodeKind(Struct, frozen=True, kw_only=True):
    """`steps` names the input that says how many steps it takes; `keeps` where its pictures go."""

    required: tuple[str, ...] = ()
    steps: str | None = None
    keeps: str | None = None


KINDS: Mapping[str, NodeKind] = {
    "CheckpointLoaderSimple": NodeKind(required=("ckpt_name",)),
    "CLIPTextEncode": NodeKind(required=("text", "clip")),
    "EmptyLatentImage": NodeKind(required=("width", "height")),
    "KSampler": NodeKind(required=("model", "positive", "negative", "latent_image", "steps"), steps="steps"),
    "VAEDecode": NodeKind(required=("samples", "vae")),
    "EmptyImage": NodeKind(),
    "ImageScale": NodeKind(required=("image",)),
    "LoadImage": NodeKind(required=("image",)),
    "SaveImage": NodeKind(required=("images",), keeps="output"),
    "PreviewImage": NodeKind(required=("images",), keeps="temp"),
}


def refusal(graph: Mapping[str, Any]) -> Json | None:
    """Return ComfyUI's answer to a graph that cannot be run."""
    for key, node in graph.items():
        name = node.get("class_type") if isinstance(node, dict) else None
        if name not in KINDS:
            return _told("invalid_prompt", f"node {key}: {name!r} is not one that the simulated ComfyUI knows")
    if errors := dict(_errors(graph)):
        return _told("prompt_outputs_failed_validation", "Prompt outputs failed validation") | {"node_errors": errors}
    if not outputs_of(graph):
        return _told("prompt_no_outputs", "Prompt has no outputs")
    try:
        in_order(graph)
    except CycleError:
        return _told("dependency_cycle", "Its nodes need each other in a circle")
    return None


def outputs_of(graph: Mapping[str, Any]) -> list[str]:
    return [key for key, node in graph.items() if KINDS[node["class_type"]].keeps]


def in_order(graph: Mapping[str, Any]) -> list[str]:
    """Return the nodes that the outputs need, what is used before who uses it; CycleError where there is no order."""
    needed: dict[str, list[str]] = {}
    waiting = outputs_of(graph)
    while waiting:
        key = waiting.pop()
        if key not in needed:
            needed[key] = _links(graph[key])
            waiting += needed[key]
    return list(TopologicalSorter(needed).static_order())


def signatures(graph: Mapping[str, Any], keys: Iterable[str]) -> dict[str, str]:
    """Name what each node yields: by its own inputs and those of all before it, which come first in `keys`."""
    found: dict[str, str] = {}
    for key in keys:
        inputs = {
            name: [found[value[0]], value[1]] if _is_link(value) else value
            for name, value in _inputs(graph[key]).items()
        }
        text = json.dumps([graph[key]["class_type"], inputs], sort_keys=True)
        found[key] = hashlib.sha256(text.encode()).hexdigest()
    return found


def steps_of(node: Json) -> int:
    name = KINDS[node["class_type"]].steps
    steps = _inputs(node).get(name) if name else None
    return steps if isinstance(steps, int) and steps > 0 else 0


def batch_of(graph: Mapping[str, Any]) -> int:
    """Return how many pictures each node that keeps some has: as many as latents were begun with."""
    sizes = [_inputs(node).get("batch_size") for node in graph.values()]
    return min(max([1, *(size for size in sizes if isinstance(size, int))]), _BATCH_MAX)


def picture(signed: str, side: int = 64) -> bytes:
    """Return a PNG of one colour, by which two results can be told apart."""
    side = min(max(side, 1), _SIZE_MAX)
    line = b"\0" + bytes.fromhex(signed[:6]) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    said = b"Comment\0simulated: no model has made this picture"
    chunks = ((b"IHDR", head), (b"tEXt", said), (b"IDAT", zlib.compress(line * side)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def object_info() -> Json:
    return {
        name: {
            "name": name,
            "input": {"required": {needed: ["*"] for needed in kind.required}},
            "output_node": bool(kind.keeps),
            "description": "simulated: it computes nothing",
        }
        for name, kind in KINDS.items()
    }


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _errors(graph: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    for key, node in graph.items():
        inputs = _inputs(node)
        missing = [name for name in KINDS[node["class_type"]].required if name not in inputs]
        dangling = [name for name, value in inputs.items() if _is_link(value) and value[0] not in graph]
        faults = [_fault("required_input_missing", "Required input is missing", name) for name in missing]
        faults += [_fault("bad_linked_input", "Bad linked input: there is no such node", name) for name in dangling]
        if faults:
            yield key, {"errors": faults, "dependent_outputs": [], "class_type": node["class_type"]}


def _fault(kind: str, message: str, name: str) -> Json:
    return {"type": kind, "message": message, "details": name, "extra_info": {"input_name": name}}


def _told(kind: str, message: str) -> Json:
    return {"error": {"type": kind, "message": message, "details": "", "extra_info": {}}, "node_errors": {}}


def _links(node: Json) -> list[str]:
    return [value[0] for value in _inputs(node).values() if _is_link(value)]


def _inputs(node: Json) -> Json:
    inputs = node.get("inputs")
    return inputs if isinstance(inputs, dict) else {}


def _is_link(value: Any) -> bool:
    """Tell whether an input is another node's output: its key and which of its outputs."""
    match value:
        case [str(), int()]:
            return True
    return False
