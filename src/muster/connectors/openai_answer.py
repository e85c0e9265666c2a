"""A streamed answer put together again: what the server would have sent without a stream."""

from typing import Any

import msgspec
from msgspec import Struct, field

from muster.connectors.openai_request import Kind
from muster.errors import UpstreamFailed

_OBJECTS = {Kind.CHAT: "chat.completion", Kind.COMPLETION: "text_completion"}

Json = dict[str, Any]


class _Part(Struct):
    """One choice's share of a chunk."""

    index: int = 0
    finish_reason: str | None = None
    logprobs: Json | None = None
    text: str | None = None
    delta: Json | None = None


class _Chunk(Struct):
    choices: list[_Part] | None = None


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _CallPart(Struct):
    index: int = 0
    id: str | None = None
    function: _Function = field(default_factory=_Function)


class Assembly:
    """Takes the chunks of one chat or completion in order."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._head: Json = {}
        self._choices: dict[int, _Choice] = {}
        self.pieces = 0  # chunks with output; as good as every engine sends one for each token

    @property
    def finished(self) -> bool:
        """Whether every choice has said why it ended."""
        return bool(self._choices) and all(choice.finish_reason for choice in self._choices.values())

    @property
    def text(self) -> str:
        """What the first choice says so far."""
        return self._choices[0].text if 0 in self._choices else ""

    def add(self, chunk: Json) -> bool:
        """Take a chunk and tell whether it brought output."""
        try:
            parts = msgspec.convert(chunk, _Chunk).choices or []
            brought = False
            for part in parts:
                brought |= self._choices.setdefault(part.index, _Choice()).add(part)
        except msgspec.ValidationError as error:
            raise UpstreamFailed(f"the model server sent a chunk that is not understood: {error}") from None
        self._head |= {key: value for key, value in chunk.items() if key != "choices" and value is not None}
        self.pieces += brought
        return brought

    def result(self) -> Json:
        choices = [{"index": index} | choice.result(self._kind) for index, choice in sorted(self._choices.items())]
        return self._head | {"object": _OBJECTS[self._kind], "choices": choices}


class _Choice:
    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._text = ""
        self._message: Json = {"role": "assistant", "content": None}
        self._calls: dict[int, Json] = {}
        self._logprobs: Json = {}

    def add(self, part: _Part) -> bool:
        self.finish_reason = part.finish_reason or self.finish_reason
        self._text += part.text or ""
        for key, value in (part.logprobs or {}).items():
            known = self._logprobs.setdefault(key, value)
            if known is not value and isinstance(known, list) and isinstance(value, list):
                known.extend(value)
        return self._add_delta(part.delta or {}) or bool(part.text)

    @property
    def text(self) -> str:
        return self._text or self._message["content"] or ""

    def _add_delta(self, delta: Json) -> bool:
        brought = False
        for key, value in delta.items():
            if value is None or value == "" or key == "role":
                continue
            brought = True
            if key == "tool_calls":
                self._add_calls(msgspec.convert(value, list[_CallPart]))
            elif isinstance(value, str):  # content, and what engines call their reasoning
                self._message[key] = (self._message.get(key) or "") + value
            else:
                self._message[key] = value
        return brought

    def _add_calls(self, parts: list[_CallPart]) -> None:
        """Names come whole, arguments in pieces."""
        for part in parts:
            call = self._calls.setdefault(
                part.index, {"id": None, "type": "function", "function": {"name": "", "arguments": ""}}
            )
            call["id"] = part.id or call["id"]
            call["function"]["name"] = part.function.name or call["function"]["name"]
            call["function"]["arguments"] += part.function.arguments or ""

    def result(self, kind: Kind) -> Json:
        said: Json = {"finish_reason": self.finish_reason}
        if kind is Kind.COMPLETION:
            said["text"] = self._text
        elif self._calls:
            calls = [call for _, call in sorted(self._calls.items())]
            said["message"] = self._message | {"tool_calls": calls}
        else:
            said["message"] = self._message | {"content": self._message["content"] or ""}
        return said | ({"logprobs": self._logprobs} if self._logprobs else {})
