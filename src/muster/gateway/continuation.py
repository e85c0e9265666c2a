"""A stream that broke off, gone on with by another worker: what was said so far is given to it as the beginning. Pure.

The caller sees one answer: pieces keep the id, time and model of the first ones, and counts are those of both together.
Where the beginning of an answer cannot be replayed exactly (tools, chosen formats, several answers, images, thoughts),
nothing is gone on with.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from muster.domain.service import Dialect
from muster.errors import UpstreamFailed
from muster.gateway.dialects import ollama, openai
from muster.gateway.dialects.call import Call
from muster.gateway.dialects.chat_answer import error_text
from muster.gateway.dialects.translate_answer import Translation
from muster.gateway.packed import Packed

HEADER = b"x-muster-continue"
# Engines that are known to take an assistant's unfinished message for the beginning of their own answer.
CONNECTORS = frozenset({"llamacpp", "ollama", "vllm"})
KEPT_BYTES_MAX = 262_144  # of the body and of what was said; beyond, a break is an error
_UNPACKED_BYTES_MAX = 4096  # of what was said
_LINE_BYTES_MAX = 60_000  # longer ones are delivered in pieces
# What makes an answer more than its text, or its text depend on how it began.
_FORBIDDEN = frozenset(
    {
        *("tools", "functions", "logprobs", "top_logprobs", "best_of", "echo", "suffix", "response_format", "format"),
        *("grammar", "json_schema", "structured_outputs", "images", "guided_json", "guided_regex", "guided_choice"),
        *("guided_grammar", "template", "context", "think", "reasoning_effort"),
    }
)
_NOTHING = (b"null", b"false", b"[]", b"0", b'""')
_BOUNDS = ("max_tokens", "max_completion_tokens", "n_predict")


class _Message(Struct):
    content: Raw
    role: str = ""
    images: list[Raw] | None = None


_talk = msgspec.json.Decoder(list[_Message])
_members = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode


def continuation(call: Call, headers: dict[bytes, bytes]) -> "Continuation | None":
    """Return what may be needed to go on with this call's stream; None when that is not possible or not wanted."""
    if not call.stream or len(call.body) > KEPT_BYTES_MAX or headers.get(HEADER, b"").strip().lower() == b"no":
        return None
    asked = _members.decode(call.body)
    if any(name in asked and bytes(asked[name]) not in _NOTHING for name in _FORBIDDEN):
        return None
    if bytes(asked.get("n", Raw(b"1"))) != b"1":
        return None
    match call.path:
        case openai.CHAT | ollama.CHAT:
            fits = _is_plain_talk(asked["messages"])
        case openai.COMPLETIONS:
            fits = bytes(asked["prompt"]).startswith(b'"')
        case ollama.GENERATE:
            fits = bytes(asked.get("raw", Raw(b"false"))) == b"true"
        case _:
            fits = False
    return Continuation(call, asked) if fits else None


def _is_plain_talk(messages: Raw) -> bool:
    try:
        talk = _talk.decode(messages)
    except msgspec.ValidationError:
        return False
    texts = all(bytes(memoryview(said.content)[:1]) == b'"' and not said.images for said in talk)
    return texts and talk[-1].role != "assistant"


class Continuation:
    """Knows what a caller has been told, when it comes to that."""

    def __init__(self, call: Call, asked: dict[str, Raw]) -> None:
        self._call = call
        self._asked = asked
        self._packed: Packed | None = Packed(KEPT_BYTES_MAX)  # None: it was too long
        self._said = bytearray()  # what follows on that

    def note(self, data: bytes | bytearray) -> None:
        """Keep what has gone to the caller, as far as it is kept at all."""
        if self._packed is None:
            return
        said = self._said
        said += data
        if len(said) > _UNPACKED_BYTES_MAX:
            if not self._packed.add(said):
                self._packed = None
            said.clear()

    def begin(self) -> "Beginning | None":
        """Return what was said in whole lines, if another worker can go on after it."""
        said = None if self._packed is None else self._packed.read(self._said)
        if said is None:
            return None
        *lines, begun = said.split(b"\n")
        if len(begun) > _LINE_BYTES_MAX:
            return None
        self._packed, self._said = Packed(KEPT_BYTES_MAX), bytearray()
        self.note(said[: len(said) - len(begun)])
        beginning = Beginning(self._call)
        for line in lines:
            if len(line) > _LINE_BYTES_MAX or not beginning.take(line):
                return None
        return beginning

    def body(self, beginning: "Beginning") -> bytes | None:
        """Return the request for the rest; None when nothing is left to be said."""
        asked = dict(self._asked)
        if not beginning.text:
            return _encode(asked)
        for name in _BOUNDS:
            if name in asked:
                left = _left(asked[name], beginning.pieces)
                if left is None:
                    return None
                asked[name] = left
        if "options" in asked:
            options = _members.decode(asked["options"])
            if "num_predict" in options:
                left = _left(options["num_predict"], beginning.pieces)
                if left is None:
                    return None
                options["num_predict"] = left
                asked["options"] = Raw(_encode(options))
        if self._call.path in (openai.CHAT, ollama.CHAT):
            messages = msgspec.json.decode(asked["messages"], type=list[Raw])
            messages.append(Raw(_encode({"role": "assistant", "content": beginning.text})))
            asked["messages"] = Raw(_encode(messages))
        else:
            asked["prompt"] = Raw(_encode(msgspec.json.decode(asked["prompt"], type=str) + beginning.text))
        return _encode(asked)


def _left(bound: Raw, used: int) -> Raw | None:
    """Return how many tokens may still come, each piece being one; a bound that is none stays."""
    tokens = msgspec.json.decode(bound)
    if not isinstance(tokens, int) or tokens <= 0:
        return bound
    return Raw(b"%d" % (tokens - used)) if tokens > used else None


def for_engine(path: str, body: bytes, connector: str) -> bytes:
    """Say that the last message is not whole, to engines that have to be told."""
    if connector != "vllm" or path != openai.CHAT:
        return body
    asked = _members.decode(body)
    return _encode(asked | {"continue_final_message": Raw(b"true"), "add_generation_prompt": Raw(b"false")})


class Beginning:
    """The first part of an answer, read from what the caller got."""

    def __init__(self, call: Call) -> None:
        self._sse = call.dialect is Dialect.OPENAI
        self.text = ""
        self.pieces = 0
        self.signs: dict[str, Any] = {}  # of the first piece: what all pieces of one answer have in common

    def take(self, line: bytes) -> bool:
        """Read one line; return whether it may be gone on with after it."""
        value = _value(line, sse=self._sse)
        if value is None:
            return True
        try:
            piece = msgspec.json.decode(value)
            said, ended = _said(piece)
        except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
            return False
        if ended or any(said.get(name) for name in ("tool_calls", "thinking", "reasoning", "reasoning_content")):
            return False
        if not self.signs:
            self.signs = {name: piece[name] for name in ("id", "created", "model") if name in piece}
        text = said.get("content") or ""
        self.text += text
        self.pieces += bool(text)
        return True


def _value(line: bytes, *, sse: bool) -> bytes | None:
    """Return a line's JSON; None when it has none."""
    if not sse:
        return line.strip() or None
    name, _, value = line.partition(b":")
    return value.strip() or None if name == b"data" else None


def _said(piece: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return what a piece says, as a message, and whether it is the last to say anything."""
    if "choices" in piece:
        if not piece["choices"]:
            return {}, False
        choice = piece["choices"][0]
        said = choice.get("delta") or {"content": choice.get("text")}
        return said, choice.get("finish_reason") is not None
    return piece.get("message") or {"content": piece["response"]}, bool(piece.get("done"))


class Spliced:
    """The second part, made to follow on the first; `inner` translates it into the caller's dialect, if it must be."""

    def __init__(self, call: Call, beginning: Beginning, worker: str, inner: Translation | None) -> None:
        self._sse = call.dialect is Dialect.OPENAI
        self._beginning = beginning
        self._worker = worker
        self._inner = inner
        self._rest = b""
        self._whole = False
        self._began = False

    @property
    def content_type(self) -> bytes:
        return b"text/event-stream" if self._sse else b"application/x-ndjson"

    def feed(self, data: bytes) -> bytes:
        if self._inner is not None:
            data = self._inner.feed(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return b"".join(self._line(line) for line in lines)

    def finish(self) -> bytes:
        data = b"" if self._inner is None else self._inner.finish()
        *lines, last = (self._rest + data).split(b"\n")
        rest = b"".join(self._line(line) for line in (*lines, last))
        if not self._whole:
            raise UpstreamFailed("the engine that went on ended its answer before it was complete")
        return rest

    def _line(self, line: bytes) -> bytes:
        value = _value(line, sse=self._sse)
        if value is None:
            return b""
        if self._sse and value == b"[DONE]":
            self._whole = True
            return b"data: [DONE]\n\n"
        try:
            piece = msgspec.json.decode(value, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UpstreamFailed(f"the engine's answer is not understood: {error}") from error
        if piece.get("error") is not None:
            raise UpstreamFailed(f"the engine failed: {error_text(value)}")
        return self._event(piece) if self._sse else self._object(piece)

    def _event(self, piece: dict[str, Any]) -> bytes:
        pieces = self._beginning.pieces
        for choice in piece.get("choices") or ():
            said = choice.get("delta")
            if said is None:
                continue
            said.pop("role", None)
            if not any(said.values()):
                said.pop("content", None)
            if not said and choice.get("finish_reason") is None and not piece.get("usage"):
                return b""
        usage = piece.get("usage")
        if usage:
            usage["completion_tokens"] = usage.get("completion_tokens", 0) + pieces
            usage["prompt_tokens"] = max(0, usage.get("prompt_tokens", 0) - pieces)
        # The event that may be open is ended first; a comment is what no client takes for a part of the answer.
        mark = b"" if self._began else b"\n: continued by %b\n\n" % self._worker.encode()
        self._began = True
        return mark + b"data: " + _encode(piece | self._beginning.signs) + b"\n\n"

    def _object(self, piece: dict[str, Any]) -> bytes:
        pieces = self._beginning.pieces
        if piece.get("done"):
            self._whole = True
            piece["eval_count"] = piece.get("eval_count", 0) + pieces
            if "prompt_eval_count" in piece:
                piece["prompt_eval_count"] = max(0, piece["prompt_eval_count"] - pieces)
        if not self._began:
            piece["muster_continued_by"] = self._worker
            self._began = True
        return _encode(piece | self._beginning.signs) + b"\n"
