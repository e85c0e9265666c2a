"""Workflows with marked places: what is filled in, with which types, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from muster.connectors.comfyui.payload import read_job
from muster.connectors.comfyui.simulated.nodes import refusal
from muster.domain.image import ImageOrder
from muster.domain.job import Hardware, Requirements
from muster.errors import InvalidInput
from muster.images.workflow import SEED_MAX, ImageModel, parse_size, read_model

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples" / "image_models"
ORDER = ImageOrder(model="m", prompt="a cat {seed}")


def model(inputs: dict[str, Any] | None = None, options: dict[str, Any] | None = None, **more: Any) -> ImageModel:
    """Read a file with one node besides the one that has the prompt."""
    nodes = {"1": {"class_type": "Text", "inputs": {"text": "{prompt}"}}, "2": {"class_type": "N", "inputs": inputs}}
    content = nodes if inputs is not None else {"1": nodes["1"]}
    return read_model("m", json.dumps(content | ({"muster": options} if options is not None else {}) | more).encode())


def filled(inputs: dict[str, Any], order: ImageOrder = ORDER, seed: int = 7) -> dict[str, Any]:
    (payload,) = model(inputs).payloads(order, seed)
    found: dict[str, Any] = payload["prompt"]["2"]["inputs"]
    return found


@pytest.mark.parametrize(
    ("mark", "asked", "otherwise"),
    [
        ("{prompt}", "a cat {seed}", "a cat {seed}"),
        ("{negative_prompt}", "dogs", ""),
        ("{negative_prompt=blurry, ugly}", "dogs", "blurry, ugly"),
        ("{width}", 640, 1024),
        ("{height=512}", 320, 512),
        ("{steps}", 9, 20),
        ("{steps=4}", 9, 4),
        ("{seed}", 123, 7),
        ("{n}", 1, 1),
        ("{n=3}", 1, 1),  # a request always has a number
        ("cats/{seed}-{steps=4}", "cats/123-9", "cats/7-4"),
        ("{prompt}, oil on canvas", "a cat {seed}, oil on canvas", "a cat {seed}, oil on canvas"),
        ("{red|blue} %date%", "{red|blue} %date%", "{red|blue} %date%"),  # ComfyUI's own
        (["1", 0], ["1", 0], ["1", 0]),
        (["a", "b"], ["a", "b"], ["a", "b"]),
        (1.5, 1.5, 1.5),
    ],
)
def test_each_place_is_filled_in_with_its_own_type(mark: Any, asked: Any, otherwise: Any) -> None:
    size = {"width": "{width}", "height": "{height}", "x": mark}
    order = replace(ORDER, size=(640, 320), negative_prompt="dogs", seed=123, steps=9)
    assert filled(size, order)["x"] == asked
    assert filled(size)["x"] == otherwise


def test_the_rest_of_the_graph_stays_and_the_next_order_finds_the_marks_again() -> None:
    found = model({"text": "{seed}"}, more={"class_type": "Other", "_meta": {"title": "t"}})
    (first,), (second,) = found.payloads(ORDER, 1), found.payloads(ORDER, 2)
    assert first["prompt"]["more"] == {"class_type": "Other", "inputs": {}, "_meta": {"title": "t"}}
    assert (first["prompt"]["2"]["inputs"], second["prompt"]["2"]["inputs"]) == ({"text": 1}, {"text": 2})


def test_several_pictures_are_one_job_where_the_graph_says_how_many_and_else_a_job_each() -> None:
    (payload,) = model({"batch_size": "{n}", "seed": "{seed}"}).payloads(replace(ORDER, n=3), 7)
    assert payload["prompt"]["2"]["inputs"] == {"batch_size": 3, "seed": 7}
    seeds = [
        payload["prompt"]["2"]["inputs"]["seed"]
        for payload in model({"seed": "{seed}"}).payloads(replace(ORDER, n=3, seed=SEED_MAX - 1), 7)
    ]
    assert seeds == [SEED_MAX - 1, SEED_MAX, 0]


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        ({"n": 0}, "n", "1 to 2"),
        ({"n": 3}, "n", "1 to 2 for m, got 3"),
        ({"size": (1024, 1024)}, "size", "one of 512x512, 640x448 for m, got 1024x1024"),
        ({"seed": -1}, "seed", "0 to"),
        ({"seed": SEED_MAX + 1}, "seed", "0 to"),
        ({"steps": 0}, "steps", "1 to 30"),
        ({"steps": 31}, "steps", "got 31"),
    ],
)
def test_what_a_model_does_not_do_is_refused_by_its_field(change: dict[str, Any], field: str, told: str) -> None:
    places = {"a": "{width}", "b": "{height}", "c": "{seed}", "d": "{steps}", "e": "{negative_prompt}"}
    found = model(places, {"n_max": 2, "sizes": ["512x512", "640x448"], "steps_max": 30})
    found.check(replace(ORDER, n=2, size=(640, 448), seed=SEED_MAX, steps=30, negative_prompt=""))
    with pytest.raises(InvalidInput, match=told) as refused:
        found.check(replace(ORDER, **change))
    assert refused.value.field == field


@pytest.mark.parametrize("size", [(512, 500), (56, 512), (512, 1032)])
def test_without_a_list_of_sizes_any_within_bounds_is_good(size: tuple[int, int]) -> None:
    found = model({"a": "{width}", "b": "{height}"}, {"side_max": 1024})
    found.check(replace(ORDER, size=(64, 1024)))
    with pytest.raises(InvalidInput, match="64 to 1024 and a multiple of 8"):
        found.check(replace(ORDER, size=size))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"size": (512, 512)}, "m has one size only: leave out size"),
        ({"seed": 1}, "m takes no seed"),
        ({"steps": 1}, "m takes no steps"),
        ({"negative_prompt": "x"}, "m takes no negative_prompt"),
    ],
)
def test_what_the_workflow_has_no_place_for_is_not_dropped_in_silence(change: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        model().check(replace(ORDER, **change))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"{", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"\xff", "not a JSON object"),
        (b'{"nodes": [], "links": []}', "export it with `Export"),
        (b'{"1": {"inputs": {}}}', r"1: .*`class_type`"),
        (b'{"1": {"class_type": ""}}', "1.class_type: "),
        (b'{"1": 5}', "1: Expected `object`"),
        (b"{}", '"{prompt}"'),
        (b'{"muster": 5}', "muster: "),
        (b'{"muster": {"n_max": 0}}', "muster.n_max: "),
        (b'{"muster": {"nmax": 1}}', "muster: .*`nmax`"),
        (b'{"muster": {"requirements": {"hardware": {"gpus": 2}}}}', "muster.requirements.hardware: .*`gpus`"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_place(data: bytes, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        read_model("m", data)


@pytest.mark.parametrize(
    ("inputs", "options", "told"),
    [
        ({"w": "{widht}"}, {}, r"2.inputs.w: {widht} is no place .* {prompt}, {negative_prompt}"),
        ({"w": "{width=big}", "h": "{height}"}, {}, "2.inputs.w: {width=big} must have a whole number"),
        ({"w": ["9", 0]}, {}, "2.inputs.w comes from node '9', which the file does not have"),
        ({"w": "{width}"}, {}, "only one of {width} and {height}"),
        ({}, {"sizes": ["1024x1024"]}, "muster.sizes need the places"),
        ({"w": "{width}", "h": "{height}"}, {"sizes": ["1024x1024", "big"]}, r"muster.sizes\[1\] must be WIDTHxHEIGHT"),
    ],
)
def test_marks_that_cannot_be_filled_in_are_found_when_the_file_is_read(
    inputs: dict[str, Any], options: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidInput, match=told):
        model(inputs, options)


def test_checkpoints_of_the_graph_are_required_of_the_worker_unless_the_file_says_otherwise() -> None:
    loader = {"ckpt_name": "sd15.safetensors"}
    assert model(loader, more={"class_type": "L", "inputs": loader}).options.requirements == Requirements(
        models=("sd15.safetensors",)
    )
    assert model({"ckpt_name": ["1", 0]}).options.requirements.models == ()
    said = {"requirements": {"models": [], "hardware": {"gpu_memory_gb": 8}}}
    assert model(loader, said).options.requirements == Requirements(hardware=Hardware(gpu_memory_gb=8))


def test_a_size_is_two_numbers() -> None:
    assert parse_size("640x320") == (640, 320)
    with pytest.raises(InvalidInput, match="got '1024'"):
        parse_size("1024")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_the_examples_are_workflows_that_comfyui_takes(path: Path) -> None:
    found = read_model(path.stem, path.read_bytes())
    assert found.places == {"prompt", "negative_prompt", "width", "height", "steps", "seed", "n"}
    assert len(found.options.requirements.models) == 1
    (payload,) = found.payloads(replace(ORDER, n=2, size=(1024, 1024)), 1)
    assert refusal(read_job(payload).graph) is None
