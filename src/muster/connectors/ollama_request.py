"""Jobs for Ollama's own API: the body of one of its three calls."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from muster.connectors.openai_request import Kind, kind_of
from muster.connectors.payload import read_payload
from muster.errors import InvalidInput

PATHS = {Kind.CHAT: "/api/chat", Kind.COMPLETION: "/api/generate", Kind.EMBEDDING: "/api/embed"}

# Ollama would pass over these without a word.
_OF_OPENAI = {
    "max_tokens": "options.num_predict",
    "max_completion_tokens": "options.num_predict",
    "temperature": "options.temperature",
    "top_p": "options.top_p",
    "seed": "options.seed",
    "stop": "options.stop",
    "n": "several jobs",
    "response_format": "format",
}
_OURS = frozenset({"kind", "model", "stream"})

_Text = Annotated[str, Meta(min_length=1)]
_List = Annotated[list[Any], Meta(min_length=1)]


class _Options(Struct):
    """Fields that are not named here are Ollama's to judge."""

    num_predict: int | None = None
    num_ctx: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0)] | None = None
    seed: int | None = None
    stop: list[str] | None = None


class _Asked(Struct, kw_only=True):
    """What all kinds share. `stream` puts the text into the job's progress."""

    kind: Kind | None = None
    model: _Text | None = None
    options: _Options | None = None
    keep_alive: str | int | float | None = None
    stream: bool | None = None


class _Message(Struct):
    role: _Text


class _Chat(_Asked, kw_only=True):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    format: str | dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None


class _Generate(_Asked, kw_only=True):
    prompt: str
    system: str | None = None
    images: list[str] | None = None
    format: str | dict[str, Any] | None = None


class _Embed(_Asked, kw_only=True):
    input: _Text | _List
    truncate: bool | None = None


SHAPES: dict[Kind, type[_Asked]] = {Kind.CHAT: _Chat, Kind.COMPLETION: _Generate, Kind.EMBEDDING: _Embed}


class OllamaRequest(Struct, frozen=True, kw_only=True):
    kind: Kind
    model: str | None
    body: dict[str, Any]
    tokens_max: int | None
    streamed: bool


def read_request(payload: Any) -> OllamaRequest:
    """Raise InvalidInput that names the field."""
    kind = read_payload(payload, _Asked).kind or kind_of(payload)
    asked = read_payload(payload, SHAPES[kind])
    for name, ours in _OF_OPENAI.items():
        if name in payload:
            raise InvalidInput(f"payload.{name} is OpenAI's; with Ollama it is {ours}", field=f"payload.{name}")
    most = asked.options.num_predict if asked.options else None
    return OllamaRequest(
        kind=kind,
        model=asked.model,
        body={key: value for key, value in payload.items() if key not in _OURS},
        tokens_max=most if most is not None and most > 0 else None,
        streamed=bool(asked.stream),
    )
