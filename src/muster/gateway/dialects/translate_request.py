"""An Ollama request as an OpenAI server understands it."""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw, Struct

from muster.errors import InvalidInput
from muster.gateway.dialects import ollama, openai
from muster.gateway.dialects.call import Call, decode

# Sampling options under the names that llama.cpp and vLLM share with Ollama; a server ignores those it does not know.
# What is missing here (num_ctx, num_gpu, …) is settled when the engine starts.
_OPTIONS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "repeat_penalty",
    "repeat_last_n",
)
# The first letters of an image in base64 tell what it is; without them PNG is the best guess.
_IMAGE_TYPES = {"/9j/": "jpeg", "iVBOR": "png", "R0lGOD": "gif", "UklGR": "webp"}


class _Function(Struct):
    name: str
    arguments: dict[str, Any] = {}


class _ToolCall(Struct):
    function: _Function
    id: str | None = None


class _Message(Struct):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class _Common(Struct):
    format: str | dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    think: bool | str | None = None


class _Chat(_Common):
    messages: list[_Message] = []
    tools: list[Raw] | None = None


class _Generate(_Common):
    prompt: str | None = None
    system: str | None = None
    template: str | None = None
    suffix: str | None = None
    images: list[str] | None = None
    raw: bool | None = None


class _Embed(Struct):
    input: str | list[str] | None = None
    prompt: str | None = None
    dimensions: int | None = None


_chat = msgspec.json.Decoder(_Chat)
_generate = msgspec.json.Decoder(_Generate)
_embed = msgspec.json.Decoder(_Embed)


def translate(call: Call, model: str) -> tuple[str, bytes]:
    """Return path and body; raise InvalidInput naming the field that cannot be said in the other dialect."""
    if call.path == ollama.CHAT:
        path, asked = openai.CHAT, _from_chat(decode(_chat, call.body))
    elif call.path == ollama.GENERATE:
        path, asked = _from_generate(decode(_generate, call.body))
    else:
        path, asked = openai.EMBEDDINGS, _from_embed(decode(_embed, call.body))
    asked["model"] = model
    if call.stream:
        asked["stream"] = True
        asked["stream_options"] = {"include_usage": True}
    return path, msgspec.json.encode(asked)


def _from_chat(chat: _Chat) -> dict[str, Any]:
    asked = {"messages": list(_messages(chat.messages))} | _settings(chat)
    if chat.tools:
        asked["tools"] = chat.tools
    return asked


def _from_generate(generate: _Generate) -> tuple[str, dict[str, Any]]:
    """With `raw` or `suffix` the prompt goes in as it is, else as what a user says, in the model's own template."""
    if generate.template:
        raise InvalidInput(
            "template cannot be set for a model behind an OpenAI server: leave it out, or send raw and the full prompt",
            field="template",
        )
    prompt = generate.prompt or ""
    if generate.raw or generate.suffix:
        asked: dict[str, Any] = {"prompt": prompt} | _settings(generate)
        if generate.suffix:
            asked["suffix"] = generate.suffix
        return openai.COMPLETIONS, asked
    messages: list[dict[str, Any]] = [{"role": "system", "content": generate.system}] if generate.system else []
    messages.append({"role": "user", "content": _content(prompt, generate.images)})
    return openai.CHAT, {"messages": messages} | _settings(generate)


def _from_embed(embed: _Embed) -> dict[str, Any]:
    asked: dict[str, Any] = {"input": embed.input if embed.input is not None else embed.prompt or ""}
    if embed.dimensions:
        asked["dimensions"] = embed.dimensions
    return asked


def _messages(messages: Iterable[_Message]) -> Iterable[dict[str, Any]]:
    """Tool calls get ids, which Ollama need not have: an answer belongs to the first open call of that tool."""
    made = 0
    open_calls: list[tuple[str, str]] = []  # id, tool
    for message in messages:
        said: dict[str, Any] = {"role": message.role, "content": _content(message.content or "", message.images)}
        if message.thinking:
            said["reasoning_content"] = message.thinking
        if message.tool_calls:
            said["tool_calls"] = []
            for tool_call in message.tool_calls:
                made += 1
                call_id = tool_call.id or f"call_{made}"
                open_calls.append((call_id, tool_call.function.name))
                said["tool_calls"].append(_tool_call(call_id, tool_call.function))
        if message.role == "tool":
            said["tool_call_id"] = message.tool_call_id or _take_call(open_calls, message.tool_name)
        yield said


def _tool_call(call_id: str, function: _Function) -> dict[str, Any]:
    arguments = msgspec.json.encode(function.arguments).decode()
    return {"id": call_id, "type": "function", "function": {"name": function.name, "arguments": arguments}}


def _take_call(open_calls: list[tuple[str, str]], tool_name: str | None) -> str:
    for place, (call_id, name) in enumerate(open_calls):
        if tool_name in (None, name):
            del open_calls[place]
            return call_id
    raise InvalidInput(f"no tool call of {tool_name!r} comes before this tool's answer", field="messages")


def _content(text: str, images: list[str] | None) -> str | list[dict[str, Any]]:
    if not images:
        return text
    return [{"type": "text", "text": text}, *({"type": "image_url", "image_url": {"url": _url(i)}} for i in images)]


def _url(image: str) -> str:
    kind = next((kind for start, kind in _IMAGE_TYPES.items() if image.startswith(start)), "png")
    return f"data:image/{kind};base64,{image}"


def _settings(asked: _Common) -> dict[str, Any]:
    options = asked.options or {}
    settings = {name: options[name] for name in _OPTIONS if options.get(name) is not None}
    tokens_max = options.get("num_predict")
    if isinstance(tokens_max, int) and tokens_max >= 0:  # below 0: without end, or until the context is full
        settings["max_tokens"] = tokens_max
    if asked.format == "json":
        settings["response_format"] = {"type": "json_object"}
    elif isinstance(asked.format, dict):
        schema = {"name": "format", "schema": asked.format, "strict": True}
        settings["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif asked.format:
        raise InvalidInput(f'format must be "json" or a JSON schema, got {asked.format!r}', field="format")
    if isinstance(asked.think, bool):
        settings["chat_template_kwargs"] = {"enable_thinking": asked.think}
    elif asked.think is not None:
        settings["reasoning_effort"] = asked.think
    return settings
