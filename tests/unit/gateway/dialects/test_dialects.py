import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.model import Model
from muster.domain.service import Dialect
from muster.errors import InvalidInput, ModelNotFound, MusterError, NoWorker, QueueFull, UpstreamFailed, UpstreamTimeout
from muster.gateway.dialects import ollama, openai
from muster.gateway.dialects.call import with_model
from muster.gateway.dialects.shape import error_frame, error_reply
from muster.gateway.dialects.translate_request import translate

PATHS = {
    "/v1/chat/completions": openai.parse,
    "/v1/completions": openai.parse,
    "/v1/embeddings": openai.parse,
    "/api/chat": ollama.parse,
    "/api/generate": ollama.parse,
    "/api/embed": ollama.parse,
    "/api/embeddings": ollama.parse,
}
KEYS = ["model", "messages", "prompt", "input", "stream", "tools", "options", "format", "images", "think", "raw"]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEYS, "role", "content", "tool_calls", "function"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted(PATHS)), st.dictionaries(st.sampled_from(KEYS), anything, max_size=6) | anything)
def test_any_json_is_read_or_refused_and_a_translation_too(path: str, body: Any):
    try:
        call = PATHS[path](path, json.dumps(body).encode())
        if call.dialect is Dialect.OLLAMA:
            json.loads(translate(call, "name")[1])
        assert json.loads(with_model(call, "other"))["model"] == "other"
    except InvalidInput as problem:
        json.loads(error_reply(Dialect.OPENAI, problem).body)


@given(st.sampled_from(sorted(PATHS)), st.binary(max_size=200))
def test_any_bytes_are_refused(path: str, body: bytes):
    with pytest.raises(InvalidInput):
        PATHS[path](path, body)


def test_streaming_is_on_by_default_for_ollama_and_off_for_openai():
    message = [{"role": "user", "content": "x"}]
    for path, body in (("/api/chat", {"messages": message}), ("/api/generate", {"prompt": "x"})):
        for stream, expected in ((None, True), (True, True), (False, False)):
            raw = json.dumps({"model": "m", "stream": stream} | body).encode()
            assert ollama.parse(path, raw).stream is expected
    for stream, expected in ((None, False), (True, True), (False, False)):
        raw = json.dumps({"model": "m", "messages": message, "stream": stream}).encode()
        assert openai.parse("/v1/chat/completions", raw).stream is expected
    assert ollama.parse("/api/embed", b'{"model":"m","input":"x"}').stream is False


@pytest.mark.parametrize(
    ("path", "body", "empty"),
    [
        ("/api/chat", {}, True),
        ("/api/chat", {"messages": []}, True),
        ("/api/chat", {"messages": [{}]}, False),
        ("/api/generate", {"prompt": ""}, True),
        ("/api/generate", {"images": ["x"]}, False),
        ("/api/generate", {"suffix": "x"}, False),
    ],
)
def test_a_request_without_a_prompt_only_loads(path: str, body: dict[str, Any], *, empty: bool):
    assert ollama.parse(path, json.dumps({"model": "m"} | body).encode()).empty is empty


@pytest.mark.parametrize(
    ("keep_alive", "unloads"),
    [(0, True), ("0", True), ("0s", True), ("0m", True), (5, False), ("5m", False), (-1, False), (None, False)],
)
def test_a_keep_alive_of_nothing_unloads(keep_alive: Any, *, unloads: bool):
    assert ollama.unloads(json.dumps({"keep_alive": keep_alive}).encode()) is unloads


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (InvalidInput("x", field="f"), "invalid_request_error"),
        (ModelNotFound("x"), "not_found_error"),
        (QueueFull("x"), "rate_limit_error"),
        (NoWorker("x"), "server_error"),
        (UpstreamFailed("x"), "server_error"),
    ],
)
def test_openai_errors_have_their_four_members(problem: MusterError, kind: str):
    reply = error_reply(Dialect.OPENAI, problem)
    error = json.loads(reply.body)["error"]
    assert error == {"message": "x", "type": kind, "param": problem.field, "code": problem.code}
    assert reply.status == problem.http_status
    assert json.loads(error_frame(Dialect.OPENAI, problem).split(b"data: ")[1]) == {"error": error}


def test_whoever_may_try_again_is_told_when_and_whoever_should_not_is_told_that():
    again, never = b"x-should-retry: true\r\n", b"x-should-retry: false\r\n"
    later = error_reply(Dialect.OPENAI, NoWorker("x"))
    assert later.lines == b"retry-after: 1\r\nx-backoff-ms: 1000\r\n" + again
    full = error_reply(Dialect.OLLAMA, QueueFull("x", retry_after_s=7.2))
    assert full.lines == b"retry-after: 8\r\nx-backoff-ms: 7200\r\n"
    assert error_reply(Dialect.OPENAI, UpstreamTimeout("x")).lines == never
    assert error_reply(Dialect.OLLAMA, UpstreamTimeout("x")).lines == b""
    for dialect in (Dialect.OPENAI, Dialect.ANTHROPIC):
        assert error_reply(dialect, UpstreamFailed("x")).lines == again
        assert error_reply(dialect, InvalidInput("x")).lines == never


def test_ollama_errors_are_one_text():
    assert json.loads(error_reply(Dialect.OLLAMA, NoWorker("x")).body) == {"error": "x"}
    assert json.loads(error_reply(Dialect.OLLAMA, ModelNotFound("x"), 'a"b').body) == {
        "error": 'model "a"b" not found, try pulling it first'
    }
    assert error_frame(Dialect.OLLAMA, NoWorker("x")) == b'{"error":"x"}\n'


def test_models_as_openai_lists_them():
    listed = openai.model_list([Model(name="a", modified_at_ms=1_700_000_000_999), Model(name="b")])
    assert listed == {
        "object": "list",
        "data": [
            {"id": "a", "object": "model", "created": 1_700_000_000, "owned_by": "muster"},
            {"id": "b", "object": "model", "created": 0, "owned_by": "muster"},
        ],
    }


def test_models_as_ollama_lists_them():
    known = Model(
        name="a",
        resident=True,
        size_bytes=7,
        digest="sha256:abc",
        family="llama",
        context_length=10,
        modified_at_ms=1_700_000_000_000,
    )
    unknown = Model(name="b:latest")

    first, second = ollama.tags([known, unknown])["models"]
    assert (first["name"], first["model"], first["size"], first["digest"]) == ("a", "a", 7, "abc")
    assert (first["details"]["family"], first["modified_at"]) == ("llama", "2023-11-14T22:13:20Z")
    assert "size" not in second, "unknown is not zero"
    assert len(second["digest"]) == 64

    [running] = ollama.ps([known, unknown])["models"]
    assert (running["name"], running["context_length"]) == ("a", 10)
    assert "size_vram" not in running

    assert ollama.show(known)["model_info"] == {"general.architecture": "llama", "llama.context_length": 10}
    assert ollama.show(unknown)["model_info"] == {"general.architecture": "unknown"}


def test_an_old_client_names_the_model_to_show_by_name():
    assert ollama.parse_show(b'{"name":"m"}') == "m"
    assert ollama.parse_show(b'{"model":"n","name":"m"}') == "n"
    with pytest.raises(InvalidInput, match="model is required"):
        ollama.parse_show(b"{}")
