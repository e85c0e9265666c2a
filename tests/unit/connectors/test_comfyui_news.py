import json
from typing import Any

import pytest

from muster.connectors.comfyui.news import Telling, read_preview

GRAPH = {key: {"class_type": name, "inputs": {}} for key, name in (("1", "Load"), ("2", "KSampler"), ("3", "Save"))}


def message(kind: str, prompt_id: str = "p", **data: Any) -> str:
    return json.dumps({"type": kind, "data": {"prompt_id": prompt_id} | data})


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def told(*messages: str) -> Telling:
    telling = Telling(GRAPH)
    telling.begin("p")
    for text in messages:
        telling.take(text)
    return telling


def test_nodes_and_steps_make_the_fraction() -> None:
    telling = told(message("execution_cached", nodes=["1"]), message("executing", node="2"))
    assert telling.progress().fraction == pytest.approx(1 / 3)
    telling.take(message("progress", node="2", value=10, max=20))
    assert telling.progress().fraction == pytest.approx(0.5)
    assert telling.progress().message == "KSampler (node 2): 10 of 20"
    telling.take(message("executing", node="3"))
    assert telling.progress().fraction == pytest.approx(2 / 3)


def test_it_never_goes_back() -> None:
    telling = told(message("executing", node="2"), message("progress", node="2", value=9, max=9))
    before = telling.progress().fraction
    telling.take(message("progress", node="2", value=1, max=9))  # a second pass of the same node
    assert telling.progress().fraction == before


@pytest.mark.parametrize(
    "last",
    [
        message("executing", node=None),
        message("execution_success"),
        message("execution_error", node_id="2"),
        message("execution_interrupted"),
    ],
)
def test_its_end_is_heard_in_every_form(last: str) -> None:
    telling = told(message("executing", node="2"))
    assert not telling.over
    assert telling.take(last)
    assert telling.over


@pytest.mark.parametrize(
    "text",
    [
        message("execution_success", "another"),
        json.dumps({"type": "status", "data": {"status": {}}}),
        json.dumps({"type": "progress", "data": None}),
        json.dumps([]),
        "no json",
        "",
    ],
)
def test_what_is_about_something_else_or_nothing_is_passed_over(text: str) -> None:
    telling = told()
    assert not telling.take(text)
    assert (telling.heard, telling.over) == (0, False)


def test_what_was_told_before_its_id_came_back_counts() -> None:
    telling = Telling(GRAPH)
    telling.take(message("executing", node="2"))
    telling.take(message("executing", "another", node=None))
    telling.begin("p")
    assert telling.progress().message == "KSampler (node 2)"
    assert not telling.over


def test_pictures_are_found_in_both_of_their_forms() -> None:
    plain = read_preview(number(1) + number(2) + b"png")
    assert plain is not None
    assert (plain.name, plain.data) == ("preview.png", b"png")
    about = b'{"node_id": "2"}'
    dressed = read_preview(number(4) + number(len(about)) + about + b"\xff\xd8jpg")
    assert dressed is not None
    assert (dressed.name, dressed.data) == ("preview.jpg", b"\xff\xd8jpg")
    for other in (b"", number(1), number(3) + number(2) + b"text", number(4) + number(999) + b"short"):
        assert read_preview(other) is None
