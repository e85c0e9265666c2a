import json
from typing import Any

import pytest

from muster.errors import InvalidInput
from muster.gateway.dialects import openai
from muster.gateway.dialects.responses_request import NotTranslatable, to_chat


def chat(**asked: Any) -> dict[str, Any]:
    body = json.dumps({"model": "M"} | asked).encode()
    sent: dict[str, Any] = json.loads(to_chat(openai.parse_response(openai.RESPONSES, body), "m"))
    return sent


def said(*items: Any, **asked: Any) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = chat(input=list(items), **asked)["messages"]
    return messages


def test_a_text_is_what_a_user_says_after_the_instructions() -> None:
    assert chat(input="Hi", instructions="Be brief.") == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    }


def test_messages_of_all_shapes_are_said_as_plainly_as_they_can_be() -> None:
    png = "data:image/png;base64,AA"
    assert said(
        {"role": "developer", "content": "D"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "two", "annotations": []}], "id": "msg_1"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": png, "detail": "low"},
                {"type": "input_image", "image_url": png},
                {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
            ],
        },
    ) == [
        {"role": "system", "content": "D"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "assistant", "content": "no"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": png, "detail": "low"}},
                {"type": "image_url", "image_url": {"url": png}},
                {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
            ],
        },
    ]


def test_calls_of_one_turn_are_one_message_with_what_was_thought_and_said_before_them() -> None:
    def call(number: int) -> dict[str, Any]:
        return {"type": "function_call", "call_id": f"c{number}", "name": "add", "arguments": "{}", "id": "fc"}

    def told(number: int) -> dict[str, Any]:
        return {"id": f"c{number}", "type": "function", "function": {"name": "add", "arguments": "{}"}}

    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    assert said(
        {"role": "user", "content": "Add."},
        thought,
        {"role": "assistant", "content": "I will."},
        call(1),
        call(2),
        {"type": "function_call_output", "call_id": "c1", "output": "3"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "4"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]},
        call(3),
    ) == [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": "I will.", "reasoning_content": "hm", "tool_calls": [told(1), told(2)]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "tool", "tool_call_id": "c2", "content": "4"},
        {"role": "assistant", "content": None, "tool_calls": [told(3)], "reasoning_content": "so"},
    ]


def test_settings_go_under_the_names_of_a_chat_and_unknown_ones_as_they_are() -> None:
    tool = {"type": "function", "name": "add", "description": "adds", "parameters": {"type": "object"}, "strict": True}
    format_ = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    assert chat(
        input="Hi",
        stream=True,
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        parallel_tool_calls=False,
        tools=[tool],
        tool_choice={"type": "function", "name": "add"},
        text={"format": format_, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto"},
        store=True,
        include=["reasoning.encrypted_content"],
        truncation="disabled",
        metadata={"a": "b"},
        previous_response_id=None,
        background=False,
    ) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "parallel_tool_calls": False,
        "tools": [{"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "response_format": {"type": "json_schema", "json_schema": {k: v for k, v in format_.items() if k != "type"}},
        "verbosity": "low",
        "reasoning_effort": "low",
    }
    assert chat(input="Hi", text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}
    assert "response_format" not in chat(input="Hi", text={"format": {"type": "text"}})
    assert chat(input="Hi", tool_choice="required")["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image"}]}]},
            "input[0].output[0].type",
        ),
    ],
)
def test_what_a_chat_cannot_say_is_refused_by_its_field(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(NotTranslatable) as caught:
        chat(**({"input": "Hi"} | asked))
    assert caught.value.field == field
    assert "/v1/responses" in caught.value.message


@pytest.mark.parametrize(
    ("items", "field"),
    [
        ([{"role": "nobody", "content": "x"}], "input[0].role"),
        ([{"role": "user", "content": 5}], "input[0].content"),
        ([{"role": "user", "content": ["x"]}], "input[0].content"),
        ([{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].text"),
        ([{"type": "function_call", "name": "n", "arguments": "{}"}], "input[0].call_id"),
        (5, "input"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(items: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        chat(input=items)
    assert not isinstance(caught.value, NotTranslatable)
    assert caught.value.field == field
