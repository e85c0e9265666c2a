import json
from typing import Any

import pytest

from muster.errors import InvalidInput
from muster.gateway.dialects import ollama
from muster.gateway.dialects.translate_request import translate


def translated(path: str, **body: Any) -> tuple[str, dict[str, Any]]:
    call = ollama.parse(path, json.dumps({"model": "m"} | body).encode())
    path, asked = translate(call, "engine-name")
    return path, json.loads(asked)


def test_a_chat_streams_unless_refused_and_asks_for_counts():
    message = {"role": "user", "content": "hi"}

    path, asked = translated("/api/chat", messages=[message])

    assert path == "/v1/chat/completions"
    assert asked == {
        "model": "engine-name",
        "messages": [message],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert "stream" not in translated("/api/chat", messages=[message], stream=False)[1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"temperature": 0, "top_p": 0.5, "seed": 3, "stop": ["a"]},
            {"temperature": 0, "top_p": 0.5, "seed": 3, "stop": ["a"]},
        ),
        ({"top_k": 4, "min_p": 0.1, "repeat_penalty": 1.1}, {"top_k": 4, "min_p": 0.1, "repeat_penalty": 1.1}),
        ({"num_predict": 7}, {"max_tokens": 7}),
        ({"num_predict": -1}, {}),
        ({"num_ctx": 4096, "num_gpu": 1, "seed": None}, {}),
        (None, {}),
    ],
)
def test_options_become_sampling_settings(options: dict[str, Any] | None, expected: dict[str, Any]):
    _, asked = translated("/api/chat", messages=[{"role": "user"}], stream=False, options=options)
    assert {key: value for key, value in asked.items() if key not in {"model", "messages"}} == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"format": "json"}, {"response_format": {"type": "json_object"}}),
        (
            {"format": {"type": "object"}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "format", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
        ({"format": ""}, {}),
        ({"format": None}, {}),
        ({"think": True}, {"chat_template_kwargs": {"enable_thinking": True}}),
        ({"think": "high"}, {"reasoning_effort": "high"}),
        ({"keep_alive": "5m", "truncate": True}, {}),
        ({"tools": [{"type": "function", "x": 1.50}]}, {"tools": [{"type": "function", "x": 1.5}]}),
    ],
)
def test_what_else_a_chat_may_ask(given: dict[str, Any], expected: dict[str, Any]):
    _, asked = translated("/api/chat", messages=[{"role": "user"}], stream=False, **given)
    assert {key: value for key, value in asked.items() if key not in {"model", "messages"}} == expected


@pytest.mark.parametrize(
    ("start", "kind"),
    [("/9j/4A", "jpeg"), ("iVBORw0", "png"), ("R0lGODdh", "gif"), ("UklGRg", "webp"), ("AAAA", "png")],
)
def test_pictures_go_as_data_urls_of_their_kind(start: str, kind: str):
    _, asked = translated("/api/chat", messages=[{"role": "user", "content": "see", "images": [start]}])
    assert asked["messages"][0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{start}"}},
    ]


def test_tool_answers_find_their_calls_by_id_by_name_and_by_order():
    def call(name: str, **more: Any) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": {"x": name}}, **more}

    _, asked = translated(
        "/api/chat",
        messages=[
            {"role": "assistant", "thinking": "hm", "tool_calls": [call("a"), call("b"), call("a", id="own")]},
            {"role": "tool", "tool_name": "b", "content": "1"},
            {"role": "tool", "content": "2"},
            {"role": "tool", "tool_call_id": "own", "content": "3"},
        ],
    )

    said = asked["messages"]
    assert [c["id"] for c in said[0]["tool_calls"]] == ["call_1", "call_2", "own"]
    assert said[0]["reasoning_content"] == "hm"
    assert said[0]["tool_calls"][0]["function"] == {"name": "a", "arguments": '{"x":"a"}'}
    assert [message["tool_call_id"] for message in said[1:]] == ["call_2", "call_1", "own"]


def test_generate_speaks_as_a_user_in_the_models_own_template():
    path, asked = translated("/api/generate", prompt="Tell.", system="Be short.", images=["iVBORw"], stream=False)
    assert path == "/v1/chat/completions"
    assert asked["messages"][0] == {"role": "system", "content": "Be short."}
    assert asked["messages"][1]["content"][0] == {"type": "text", "text": "Tell."}


@pytest.mark.parametrize("how", [{"raw": True}, {"suffix": "end"}])
def test_generate_gives_a_raw_prompt_as_it_is(how: dict[str, Any]):
    path, asked = translated("/api/generate", prompt="Once", system="ignored", stream=False, **how)
    assert path == "/v1/completions"
    assert asked == {"model": "engine-name", "prompt": "Once"} | ({"suffix": "end"} if "suffix" in how else {})


def test_embeddings_of_both_ages():
    assert translated("/api/embed", input=["a", "b"], dimensions=4) == (
        "/v1/embeddings",
        {"model": "engine-name", "input": ["a", "b"], "dimensions": 4},
    )
    assert translated("/api/embeddings", prompt="a")[1] == {"model": "engine-name", "input": "a"}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/api/chat", {"messages": [{"content": "no role"}]}, "messages[0].role"),
        ("/api/chat", {"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ("/api/chat", {"messages": [{"role": "tool", "content": "1"}]}, "messages"),
        ("/api/chat", {"messages": [{"role": "user"}], "format": "yaml"}, "format"),
        ("/api/chat", {"messages": [{"role": "user"}], "options": []}, "options"),
        ("/api/generate", {"prompt": "x", "template": "t"}, "template"),
        ("/api/generate", {"prompt": "x", "images": [3]}, "images[0]"),
        ("/api/embed", {"input": [3]}, "input[0]"),
    ],
)
def test_what_cannot_be_said_names_its_field(path: str, body: dict[str, Any], field: str):
    with pytest.raises(InvalidInput) as problem:
        translated(path, **body)
    assert problem.value.field == field
