"""What a ComfyUI job asks for: a graph as ComfyUI's API takes it, and the pictures that it reads."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from muster.connectors.payload import read_payload
from muster.domain.file import check_file_name, parse_file_url
from muster.errors import InvalidInput

_IMAGES_MAX = 32

Graph = dict[str, Any]


class GraphNode(Struct, kw_only=True):
    """Further keys, such as `_meta`, are ComfyUI's."""

    class_type: Annotated[str, Meta(min_length=1)]
    inputs: dict[str, Any] = {}


class ComfyPayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`prompt` is the graph, as the editor's "Export (API)" writes it.

    `images` are files by the names that the graph calls them by: each is given to ComfyUI before it runs, and every
    input of the graph with just this text stands for it. `preview: false` keeps pictures of the work under way from
    being kept.
    """

    prompt: Annotated[dict[str, GraphNode], Meta(min_length=1)]
    images: Annotated[dict[str, str], Meta(max_length=_IMAGES_MAX)] = {}
    preview: bool = True
    extra_pnginfo: dict[str, Any] | None = None


class ComfyJob(Struct, frozen=True, kw_only=True):
    graph: Graph
    images: dict[str, str]
    preview: bool
    extra_pnginfo: dict[str, Any] | None

    def graph_with(self, names: dict[str, str]) -> Graph:
        """Return the graph with ComfyUI's names in place of the payload's."""
        return {
            key: node | {"inputs": {name: _renamed(value, names) for name, value in node.get("inputs", {}).items()}}
            for key, node in self.graph.items()
        }


def read_job(payload: Any) -> ComfyJob:
    """Raise InvalidInput that names the field."""
    if isinstance(payload, dict) and isinstance(prompt := payload.get("prompt"), dict) and _is_editors(prompt):
        raise InvalidInput(
            "payload.prompt is a workflow of the editor: export it with `Export (API)`, which is what ComfyUI runs",
            field="payload.prompt",
        )
    asked = read_payload(payload, ComfyPayload)
    for key, node in asked.prompt.items():
        _check_links(key, node, asked.prompt)
    for name, url in asked.images.items():
        check_file_name(name, f"payload.images.{name}")
        parse_file_url(url, f"payload.images.{name}")
    return ComfyJob(
        graph=payload["prompt"], images=asked.images, preview=asked.preview, extra_pnginfo=asked.extra_pnginfo
    )


def _is_editors(prompt: dict[str, Any]) -> bool:
    return isinstance(prompt.get("nodes"), list) and "links" in prompt


def _check_links(key: str, node: GraphNode, graph: dict[str, GraphNode]) -> None:
    """Refuse links, `[node, output]`, from nowhere; a list of anything else is a value."""
    for name, value in node.inputs.items():
        match value:
            case [str(other), int()] if other not in graph:
                field = f"payload.prompt.{key}.inputs.{name}"
                raise InvalidInput(f"{field} comes from node {other!r}, which the prompt does not have", field=field)


def _renamed(value: Any, names: dict[str, str]) -> Any:
    return names.get(value, value) if isinstance(value, str) else value
