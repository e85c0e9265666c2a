"""A request for a response (`/v1/responses`) as a server understands it that only chats.

What has to be kept by a server between requests, and tools that it runs by itself, cannot be said there: that is
refused by its field, not left out. What neither dialect knows goes through, for engines have options of their own.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw, Struct

from muster.errors import InvalidInput
from muster.gateway.dialects.call import Call, decode

# Settled here, or of no effect on what the model says.
_TAKEN = frozenset(
    {
        *("model", "input", "instructions", "max_output_tokens", "tools", "tool_choice", "text", "reasoning"),
        *("stream", "stream_options", "include", "store", "background", "truncation", "metadata", "max_tool_calls"),
        *("service_tier", "safety_identifier", "top_logprobs", "prompt_cache_retention", "prompt_cache_options"),
    }
)
# Would have to be kept, or is done with nothing but OpenAI's own servers.
_KEPT = ("previous_response_id", "conversation", "prompt", "context_management", "moderation")
_UNSAID = (b"null", b"false", b"[]", b"{}")
_LOGPROBS = "message.output_text.logprobs"
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_TEXTS = frozenset({"input_text", "output_text", "text", "reasoning_text", "summary_text"})


class NotTranslatable(InvalidInput):
    """Said to no engine that only chats; one that serves the path itself may take it."""

    code = "not_translatable"


class _Text(Struct):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class _Reasoning(Struct):
    effort: str | None = None


class _Asked(Struct):
    input: str | list[dict[str, Any]] = ""
    instructions: str | None = None
    max_output_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    include: list[str] | None = None
    background: bool | None = None
    truncation: str | None = None
    top_logprobs: int | None = None


_asked = msgspec.json.Decoder(_Asked)
_members = msgspec.json.Decoder(dict[str, Raw])


def to_chat(call: Call, model: str) -> bytes:
    """Return the body for a chat; NotTranslatable or InvalidInput names the field."""
    members = decode(_members, call.body)
    asked = decode(_asked, call.body)
    _check(members, asked)
    chat: dict[str, Any] = {name: value for name, value in members.items() if name not in _TAKEN | {*_KEPT}}
    chat |= {"model": model, "messages": _messages(asked)} | _settings(asked)
    if call.stream:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(chat)


def _check(members: dict[str, Raw], asked: _Asked) -> None:
    for name in _KEPT:
        if bytes(members.get(name, Raw(b"null"))) not in _UNSAID:
            raise _refusal(name, "what came before is not kept: send all of it as `input`")
    if asked.background:
        raise _refusal("background", "an answer is not kept for later: leave it out")
    if asked.truncation not in (None, "disabled"):
        raise _refusal("truncation", "nothing is cut from the input: leave it out")
    if asked.top_logprobs or _LOGPROBS in (asked.include or ()):
        raise _refusal("top_logprobs" if asked.top_logprobs else "include", "ask /v1/chat/completions for them")


def _refusal(field: str, why: str) -> NotTranslatable:
    return NotTranslatable(
        f"{field} needs an engine that serves /v1/responses itself, and here the model is one to chat with; {why}",
        field=field,
    )


def _messages(asked: _Asked) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if asked.instructions:
        messages.append({"role": "system", "content": asked.instructions})
    if isinstance(asked.input, str):
        return [*messages, {"role": "user", "content": asked.input}]
    thoughts = ""
    for place, item in enumerate(asked.input):
        field = f"input[{place}]"
        message: dict[str, Any]
        match item.get("type", "message"):
            case "message":
                message = {"role": _role(item, field), "content": _content(item.get("content"), f"{field}.content")}
            case "function_call":
                message = {"role": "assistant", "content": None, "tool_calls": [_tool_call(item, field)]}
            case "function_call_output":
                output = _only_text(item.get("output"), f"{field}.output")
                message = {"role": "tool", "tool_call_id": _text_of(item, "call_id", field), "content": output}
            case "reasoning":
                thoughts += "".join(_texts(item.get("content") or item.get("summary") or [], f"{field}.content"))
                continue
            case other:
                raise _refusal(f"{field}.type", f"{other!r} cannot be said in a chat")
        if thoughts and message["role"] == "assistant":
            message["reasoning_content"] = thoughts
        thoughts = ""
        _add(messages, message)
    return messages


def _add(messages: list[dict[str, Any]], message: dict[str, Any]) -> None:
    """Put calls that a model made in one turn into one message, with what it said before them."""
    last = messages[-1] if messages else {}
    if "tool_calls" in message and last.get("role") == "assistant":
        last["tool_calls"] = [*last.get("tool_calls", ()), *message["tool_calls"]]
    else:
        messages.append(message)


def _role(item: dict[str, Any], field: str) -> str:
    role = item.get("role")
    if role not in _ROLES:
        raise InvalidInput(f"role must be one of {', '.join(_ROLES)}, got {role!r}", field=f"{field}.role")
    return _ROLES[role]


def _content(content: Any, field: str) -> str | list[dict[str, Any]]:
    """Return what is nothing but one text as such: not every engine takes parts."""
    if isinstance(content, str):
        return content
    parts = list(_parts(content, field))
    if len(parts) == 1 and parts[0]["type"] == "text":
        return str(parts[0]["text"])
    return parts


def _parts(content: Any, field: str) -> Iterator[dict[str, Any]]:
    for place, part in _listed(content, field):
        at = f"{field}[{place}]"
        match part.get("type"):
            case kind if kind in _TEXTS:
                yield {"type": "text", "text": _text_of(part, "text", at)}
            case "refusal":
                yield {"type": "text", "text": _text_of(part, "refusal", at)}
            case "input_image" if part.get("image_url"):
                detail = {"detail": part["detail"]} if part.get("detail") else {}
                yield {"type": "image_url", "image_url": {"url": part["image_url"]} | detail}
            case "input_image":
                raise _refusal(f"{at}.file_id", "send the image itself as `image_url`")
            case "input_audio":
                yield {"type": "input_audio", "input_audio": part.get("input_audio")}
            case other:
                raise _refusal(f"{at}.type", f"{other!r} cannot be said in a chat")


def _only_text(content: Any, field: str) -> str:
    return content if isinstance(content, str) else "".join(_texts(content, field))


def _texts(content: Any, field: str) -> Iterator[str]:
    for place, part in _listed(content, field):
        if part.get("type") not in _TEXTS:
            raise _refusal(f"{field}[{place}].type", f"{part.get('type')!r} cannot be said here in a chat")
        yield _text_of(part, "text", f"{field}[{place}]")


def _listed(content: Any, field: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise InvalidInput(f"{field} must be a text or a list of parts", field=field)
    return enumerate(content)


def _text_of(item: dict[str, Any], name: str, field: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise InvalidInput(f"{field}.{name} must be a text", field=f"{field}.{name}")
    return value


def _tool_call(item: dict[str, Any], field: str) -> dict[str, Any]:
    function = {"name": _text_of(item, "name", field), "arguments": _text_of(item, "arguments", field)}
    return {"id": _text_of(item, "call_id", field), "type": "function", "function": function}


def _settings(asked: _Asked) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if asked.max_output_tokens is not None:
        settings["max_tokens"] = asked.max_output_tokens
    if asked.tools:
        settings["tools"] = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(asked.tools)]
    if asked.tool_choice is not None:
        settings["tool_choice"] = _tool_choice(asked.tool_choice)
    if asked.reasoning is not None and asked.reasoning.effort is not None:
        settings["reasoning_effort"] = asked.reasoning.effort
    if asked.text is not None:
        settings |= _text_settings(asked.text)
    return settings


def _tool(tool: dict[str, Any], field: str) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise _refusal(f"{field}.type", f"nobody runs the tool {tool.get('type')!r} here: only functions can be called")
    told = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in told if tool.get(name) is not None}}


def _tool_choice(choice: str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(choice, str):
        return choice
    if choice.get("type") != "function":
        raise _refusal("tool_choice.type", "only functions can be chosen")
    return {"type": "function", "function": {"name": _text_of(choice, "name", "tool_choice")}}


def _text_settings(text: _Text) -> dict[str, Any]:
    settings: dict[str, Any] = {} if text.verbosity is None else {"verbosity": text.verbosity}
    match (text.format or {}).get("type", "text"):
        case "text":
            pass
        case "json_object":
            settings["response_format"] = {"type": "json_object"}
        case "json_schema":
            schema = {name: value for name, value in (text.format or {}).items() if name != "type"}
            settings["response_format"] = {"type": "json_schema", "json_schema": schema}
        case other:
            raise _refusal("text.format.type", f"{other!r} is none of text, json_object, json_schema")
    return settings
