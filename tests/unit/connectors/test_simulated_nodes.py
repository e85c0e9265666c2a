"""The graphs that the simulated ComfyUI takes, in which order it runs them, and what is the same."""

import struct
import zlib
from typing import Any

import pytest

from muster.connectors.comfyui.simulated.nodes import (
    batch_of,
    in_order,
    object_info,
    picture,
    refusal,
    signatures,
    steps_of,
)

Json = dict[str, Any]


def node(kind: str, **inputs: Any) -> Json:
    return {"class_type": kind, "inputs": inputs}


GRAPH = {
    "save": node("SaveImage", images=["scale", 0]),
    "scale": node("ImageScale", image=["empty", 0]),
    "empty": node("EmptyImage", width=64),
    "unused": node("EmptyImage"),
}


def test_nodes_come_before_who_uses_them_and_only_those_that_are_used() -> None:
    assert in_order(GRAPH) == ["empty", "scale", "save"]


@pytest.mark.parametrize(
    ("graph", "told"),
    [
        ({}, "no outputs"),
        ({"1": node("EmptyImage")}, "no outputs"),
        ({"1": node("Magic")}, "'Magic' is not one that the simulated ComfyUI knows"),
        ({"1": "nonsense"}, "None is not one"),
        ({"1": node("SaveImage", images=["2", 0]), "2": node("ImageScale", image=["2", 0])}, "in a circle"),
    ],
)
def test_a_graph_that_cannot_be_run_is_refused_in_words(graph: Json, told: str) -> None:
    refused = refusal(graph)
    assert refused is not None
    assert told in refused["error"]["message"]


def test_what_a_node_lacks_is_told_of_that_node() -> None:
    refused = refusal(
        {"1": node("SaveImage"), "2": node("PreviewImage", images=["9", 0]), "3": {"class_type": "LoadImage"}}
    )
    assert refused is not None
    errors = {key: [fault["details"] for fault in told["errors"]] for key, told in refused["node_errors"].items()}
    assert errors == {"1": ["images"], "2": ["images"], "3": ["image"]}


def test_a_good_graph_is_not_refused() -> None:
    assert refusal(GRAPH) is None


def test_a_node_is_the_same_while_all_before_it_is() -> None:
    order = in_order(GRAPH)
    first = signatures(GRAPH, order)
    assert signatures(GRAPH, order) == first
    other = signatures(GRAPH | {"empty": node("EmptyImage", width=65)}, order)
    assert all(other[key] != first[key] for key in order)
    same = signatures(GRAPH | {"scale": node("ImageScale", image=["empty", 0], by=2)}, order)
    assert (same["empty"], same["save"] != first["save"]) == (first["empty"], True)


@pytest.mark.parametrize(("steps", "taken"), [(20, 20), (0, 0), (-1, 0), ("many", 0), (None, 0)])
def test_a_sampler_takes_its_steps(steps: Any, taken: int) -> None:
    assert steps_of(node("KSampler", steps=steps)) == taken
    assert steps_of(node("EmptyImage", steps=steps)) == 0


def test_a_picture_is_a_png_that_says_what_it_is() -> None:
    data = picture("a1b2c3" + "0" * 58, side=2)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == (2, 2)
    assert b"simulated: no model has made this picture" in data
    begin = data.index(b"IDAT") + 4
    assert zlib.decompress(data[begin:-16]) == b"\0\xa1\xb2\xc3\xa1\xb2\xc3" * 2


def test_every_node_says_that_it_is_simulated() -> None:
    assert all("simulated" in known["description"] for known in object_info().values())
    assert object_info()["SaveImage"]["output_node"]


@pytest.mark.parametrize(("size", "pictures"), [(1, 1), (3, 3), (0, 1), (1000, 16), (["4", 0], 1), (None, 1)])
def test_there_are_as_many_pictures_as_latents(size: Any, pictures: int) -> None:
    assert batch_of({"1": node("EmptyLatentImage", batch_size=size), "2": node("SaveImage")}) == pictures
