"""An image model as its file has it: a graph of ComfyUI's API with marked places, and what callers may ask of it."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from muster.domain.image import ImageOrder
from muster.domain.job import Requirements
from muster.errors import InvalidInput

SERVICE = "comfyui"
OPTIONS = "muster"  # the one key of the file that is no node
PLACES: Mapping[str, int | str] = {  # what stands there if neither caller nor file say: for numbers a number
    "prompt": "",
    "negative_prompt": "",
    "width": 1024,
    "height": 1024,
    "steps": 20,
    "seed": 0,
    "n": 1,
}
SEED_MAX = 2**53 - 1  # every reader of JSON keeps it
_SIDE_STEP = 8  # ComfyUI's latents have no finer one
_SIDE_MIN = 64

_MARK = re.compile(r"\{([a-z_]+)(?:=([^{}]*))?\}")
_SIZE = re.compile(r"([0-9]{2,5})x([0-9]{2,5})\Z")
_AT = re.compile(r"(?P<problem>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?", re.DOTALL)

Graph = dict[str, Any]
T = TypeVar("T")


class _Node(Struct):
    class_type: Annotated[str, Meta(min_length=1)]
    inputs: dict[str, Any] = {}


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says under `muster`. `sizes` are the only ones, none: any up to `side_max` pixels."""

    n_max: Annotated[int, Meta(ge=1, le=100)] = 10
    sizes: tuple[str, ...] = ()
    side_max: Annotated[int, Meta(ge=_SIDE_MIN, le=16_384)] = 2048
    steps_max: Annotated[int, Meta(ge=1, le=10_000)] = 150
    requirements: Requirements = Requirements()


class ImageModel(Struct, frozen=True, kw_only=True):
    """`places` are those that the graph has marked."""

    name: str
    graph: Graph
    places: frozenset[str]
    options: Options

    def check(self, order: ImageOrder) -> None:
        """Raise InvalidInput, naming the field, for what this model does not do."""
        if not 1 <= order.n <= self.options.n_max:
            raise InvalidInput(
                f"n must be 1 to {self.options.n_max} for {self.name}, got {order.n}; ask several times for more",
                field="n",
            )
        self._check_size(order.size)
        if order.negative_prompt is not None:
            self._check_has("negative_prompt")
        if order.seed is not None:
            self._check_has("seed")
            if not 0 <= order.seed <= SEED_MAX:
                raise InvalidInput(f"seed must be 0 to {SEED_MAX}, got {order.seed}", field="seed")
        if order.steps is not None:
            self._check_has("steps")
            if not 1 <= order.steps <= self.options.steps_max:
                raise InvalidInput(
                    f"steps must be 1 to {self.options.steps_max} for {self.name}, got {order.steps}", field="steps"
                )

    def _check_size(self, size: tuple[int, int] | None) -> None:
        if size is None:
            return
        shown, options = f"{size[0]}x{size[1]}", self.options
        if "width" not in self.places:
            raise InvalidInput(f"{self.name} has one size only: leave out size, or send auto", field="size")
        if options.sizes:
            if shown not in options.sizes:
                known = ", ".join(options.sizes)
                raise InvalidInput(f"size must be one of {known} for {self.name}, got {shown}", field="size")
        elif any(side % _SIDE_STEP or not _SIDE_MIN <= side <= options.side_max for side in size):
            raise InvalidInput(
                f"size must be WIDTHxHEIGHT, each {_SIDE_MIN} to {options.side_max} and a multiple of {_SIDE_STEP}, "
                f"for {self.name}, got {shown}",
                field="size",
            )

    def _check_has(self, place: str) -> None:
        if place not in self.places:
            raise InvalidInput(f"{self.name} takes no {place}: its workflow has no place for it", field=place)

    def payloads(self, order: ImageOrder, seed: int) -> list[dict[str, Any]]:
        """Return what its jobs are given: one for all pictures where the graph says how many, else one for each.

        `seed` counts where the order has none.
        """
        first = seed if order.seed is None else order.seed
        if "n" in self.places:
            return [{"prompt": self._filled(order, first)}]
        return [{"prompt": self._filled(order, (first + number) % (SEED_MAX + 1))} for number in range(order.n)]

    def _filled(self, order: ImageOrder, seed: int) -> Graph:
        width, height = order.size or (None, None)
        asked = {
            "prompt": order.prompt,
            "negative_prompt": order.negative_prompt,
            "width": width,
            "height": height,
            "steps": order.steps,
            "seed": seed,
            "n": order.n,
        }
        return {
            key: node | {"inputs": {name: _put(value, asked) for name, value in node.get("inputs", {}).items()}}
            for key, node in self.graph.items()
        }


def read_model(name: str, data: bytes) -> ImageModel:
    """Read a model's file; InvalidInput names the field."""
    try:
        content = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"it is not a JSON object: {error}") from None
    said = content.pop(OPTIONS, {})
    options = _read(said, Options, OPTIONS)
    if isinstance(content.get("nodes"), list) and "links" in content:
        raise InvalidInput("it is a workflow of the editor: export it with `Export (API)`, which is what ComfyUI runs")
    nodes = {key: _read(node, _Node, key) for key, node in content.items()}
    for number, size in enumerate(options.sizes):
        parse_size(size, f"{OPTIONS}.sizes[{number}]")
    for key, node in nodes.items():
        _check_links(key, node, nodes)
    places = frozenset(place for key, node in nodes.items() for place in _places(key, node))
    _check_places(places, options)
    if "models" not in said.get("requirements", {}):
        requirements = msgspec.structs.replace(options.requirements, models=_checkpoints(nodes))
        options = msgspec.structs.replace(options, requirements=requirements)
    return ImageModel(name=name, graph=content, places=places, options=options)


def parse_size(text: str, field: str = "size") -> tuple[int, int]:
    match = _SIZE.match(text)
    if match is None:
        raise InvalidInput(f"{field} must be WIDTHxHEIGHT in pixels, such as 1024x1024, got {text[:50]!r}", field=field)
    return int(match[1]), int(match[2])


def _read(value: Any, kind: type[T], field: str) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        match = _AT.fullmatch(str(error))
        problem, path = (match["problem"], match["path"]) if match else (str(error), None)
        where = f"{field}.{path}" if path else field
        raise InvalidInput(f"{where}: {problem}", field=where) from None


def _check_links(key: str, node: _Node, nodes: Mapping[str, _Node]) -> None:
    for name, value in node.inputs.items():
        match value:
            case [str(other), int()] if other not in nodes:
                field = f"{key}.inputs.{name}"
                raise InvalidInput(f"{field} comes from node {other!r}, which the file does not have", field=field)


def _places(key: str, node: _Node) -> Iterator[str]:
    """Yield the marks of a node; a mistyped one would reach ComfyUI as a text."""
    for name, value in node.inputs.items():
        field = f"{key}.inputs.{name}"
        for place, default in _MARK.findall(value) if isinstance(value, str) else ():
            if place not in PLACES:
                known = ", ".join(f"{{{known}}}" for known in PLACES)
                raise InvalidInput(
                    f"{field}: {{{place}}} is no place that is filled in; there are {known}", field=field
                )
            if default and isinstance(PLACES[place], int) and not (default.isascii() and default.isdecimal()):
                raise InvalidInput(f"{field}: {{{place}={default}}} must have a whole number after its =", field=field)
            yield place


def _check_places(places: frozenset[str], options: Options) -> None:
    if "prompt" not in places:
        raise InvalidInput('no input is "{prompt}": put it where the text of the picture belongs', field="{prompt}")
    if ("width" in places) != ("height" in places):
        raise InvalidInput("it has only one of {width} and {height}: mark both, or none", field="{width}")
    if options.sizes and "width" not in places:
        field = f"{OPTIONS}.sizes"
        raise InvalidInput(f"{field} need the places {{width}} and {{height}}", field=field)


def _checkpoints(nodes: Mapping[str, _Node]) -> tuple[str, ...]:
    """Name what the graph loads of what ComfyUI lists: on a worker without it the graph could only fail."""
    named = (node.inputs.get("ckpt_name") for node in nodes.values())
    return tuple(dict.fromkeys(name for name in named if isinstance(name, str) and name and not _MARK.search(name)))


def _put(value: Any, asked: Mapping[str, int | str | None]) -> Any:
    """Fill in the marks of an input; one that is nothing but a mark has its place's own type."""
    if not isinstance(value, str):
        return value
    whole = _MARK.fullmatch(value)
    return _value(whole, asked) if whole else _MARK.sub(lambda mark: str(_value(mark, asked)), value)


def _value(mark: re.Match[str], asked: Mapping[str, int | str | None]) -> int | str:
    place, default = mark[1], mark[2]
    if (wanted := asked[place]) is not None:
        return wanted
    usual = PLACES[place]
    if not default:
        return usual
    return int(default) if isinstance(usual, int) else default
