import io
import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.stub_plane import Reply, StubPlane

PATH = "/v1/chat/completions"


def spoken(*pieces: str) -> list[bytes]:
    chunks = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    frames = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in [*chunks, {"choices": []}]]
    return [*frames, b"data: [DONE]\n\n"]


def said(plane: StubPlane) -> list[list[tuple[str, str]]]:
    return [[(m["role"], m["content"]) for m in request.body["messages"]] for request in plane.asked(PATH)]


def test_an_answer_is_printed_as_it_comes(plane: StubPlane, cli: Cli) -> None:
    plane.on("POST", PATH, Reply(frames=spoken("Hel", "lo.")))

    outcome = cli("chat", "smollm2", "Say hello.", "--system", "Be short.", "--max-tokens", "9", "--temperature", "0")

    assert outcome.out == "Hello.\n"
    (request,) = plane.requests
    asked: dict[str, Any] = request.body
    assert (asked["model"], asked["max_tokens"], asked["temperature"], asked["stream"]) == ("smollm2", 9, 0, True)
    assert said(plane) == [[("system", "Be short."), ("user", "Say hello.")]]


def test_a_prompt_can_be_piped_in(plane: StubPlane, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    plane.on("POST", PATH, Reply(frames=spoken("ok")))
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe"))

    cli("chat", "smollm2")

    assert said(plane) == [[("user", "from a pipe")]]


def test_a_conversation_keeps_what_was_said(plane: StubPlane, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    plane.on("POST", PATH, Reply(frames=spoken("A1")), Reply(frames=spoken("A2")))
    monkeypatch.setattr("sys.stdin", Terminal("Q1\n\nQ2\n"))

    outcome = cli("chat", "smollm2")

    assert outcome.code == 0
    assert said(plane) == [[("user", "Q1")], [("user", "Q1"), ("assistant", "A1"), ("user", "Q2")]]


def test_a_program_gets_the_whole_answer(plane: StubPlane, cli: Cli) -> None:
    plane.on("POST", PATH, Reply({"choices": []}))

    assert json.loads(cli("chat", "smollm2", "hi", "--json").out) == {"choices": []}


def test_an_unknown_model_says_where_the_known_ones_are(plane: StubPlane, cli: Cli) -> None:
    error = {"error": {"message": "no model x in the fleet", "code": "model_not_found"}}
    plane.on("POST", PATH, Reply(error, 404))

    outcome = cli("chat", "x", "hi")

    assert outcome.code == 1
    assert outcome.err == "muster: no model x in the fleet\nNext: muster models lists what there is\n"


def test_a_failure_in_the_middle_of_an_answer_is_an_error(plane: StubPlane, cli: Cli) -> None:
    failure = b'data: {"error": {"message": "the worker went away", "code": "upstream_failed"}}\n\n'
    plane.on("POST", PATH, Reply(frames=[*spoken("Hel")[:1], failure]))

    outcome = cli("chat", "smollm2", "hi")

    assert outcome.code == 1
    assert outcome.out.startswith("Hel")
    assert "the worker went away" in outcome.err
