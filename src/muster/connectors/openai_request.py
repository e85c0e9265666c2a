"""Jobs for OpenAI-compatible servers: the body of one of three calls, checked where it decides how it runs."""

from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from muster.connectors.payload import read_payload
from muster.errors import InvalidInput


class Kind(StrEnum):
    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"

    @property
    def capability(self) -> str:
        """What a model must be good for."""
        return "embedding" if self is Kind.EMBEDDING else "completion"


PATHS = {Kind.CHAT: "/v1/chat/completions", Kind.COMPLETION: "/v1/completions", Kind.EMBEDDING: "/v1/embeddings"}

_KIND_BY_KEY = {"messages": Kind.CHAT, "prompt": Kind.COMPLETION, "input": Kind.EMBEDDING}
# Said by the worker: which model, and that the answer comes in a stream, by which a hang is noticed. Who sets `stream`
# gets the text with the job's progress.
_OURS = frozenset({"kind", "model", "stream", "stream_options"})

_Text = Annotated[str, Meta(min_length=1)]
_List = Annotated[list[Any], Meta(min_length=1)]


class _Asked(Struct, kw_only=True):
    """What all kinds share. Fields that are not named here are the engine's to judge."""

    kind: Kind | None = None
    model: _Text | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool | None = None


class _Message(Struct):
    role: _Text


class _Chat(_Asked, kw_only=True):
    messages: Annotated[list[_Message], Meta(min_length=1)]


class _Completion(_Asked, kw_only=True):
    prompt: str | _List


class _Embedding(_Asked, kw_only=True):
    input: _Text | _List


SHAPES: dict[Kind, type[_Asked]] = {Kind.CHAT: _Chat, Kind.COMPLETION: _Completion, Kind.EMBEDDING: _Embedding}


class OpenAIRequest(Struct, frozen=True, kw_only=True):
    """`tokens_max` is how many tokens the answer can have at most, None when nobody said.

    `streamed`: the progress is to carry the text.
    """

    kind: Kind
    model: str | None
    body: dict[str, Any]
    tokens_max: int | None = None
    streamed: bool = False


def read_request(payload: Any) -> OpenAIRequest:
    """Raise InvalidInput that names the field."""
    kind = read_payload(payload, _Asked).kind or kind_of(payload)
    asked = read_payload(payload, SHAPES[kind])
    each = asked.max_completion_tokens or asked.max_tokens or 0
    return OpenAIRequest(
        kind=kind,
        model=asked.model,
        body={key: value for key, value in payload.items() if key not in _OURS},
        tokens_max=each * (asked.n or 1) if each > 0 else None,
        streamed=bool(asked.stream),
    )


def kind_of(payload: Any) -> Kind:
    found = [key for key in _KIND_BY_KEY if key in (payload or {})]
    if len(found) == 1:
        return _KIND_BY_KEY[found[0]]
    if found:
        raise InvalidInput(
            f"payload has {' and '.join(found)}: say which is meant by payload.kind, one of {', '.join(Kind)}",
            field="payload.kind",
        )
    raise InvalidInput(
        "payload needs messages (for a chat), prompt (for a completion) or input (for an embedding)", field="payload"
    )
