"""OpenAI's dialect: what is read of a request, and how lists and errors look."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from muster.domain.model import Model
from muster.domain.service import Dialect
from muster.errors import InvalidInput, MusterError, QuotaExceeded
from muster.gateway.dialects.call import Call, decode
from muster.gateway.dialects.form import flag, read_form

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
RERANK = "/v1/rerank"
SCORE = "/v1/score"
SPEECH = "/v1/audio/speech"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
TRANSLATIONS = "/v1/audio/translations"
IMAGES = "/v1/images/generations"
MODELS = "/v1/models"

# An Ollama server speaks this dialect too, and says so by listing both.
SPOKEN_BY = frozenset({Dialect.OPENAI})

_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_FIRST_SERVER_ERROR = 500

_ModelName = Annotated[str, Meta(min_length=1)]


class _Chat(Struct):
    model: _ModelName
    messages: Annotated[list[Raw], Meta(min_length=1)]
    stream: bool | None = None


class _Completion(Struct):
    model: _ModelName
    prompt: str | list[Raw]
    stream: bool | None = None


class _Embedding(Struct):
    model: _ModelName
    input: str | list[Raw]


class _Response(Struct):
    model: _ModelName
    stream: bool | None = None
    previous_response_id: str | None = None


class _Other(Struct):
    model: _ModelName
    stream: bool | None = None


_chat = msgspec.json.Decoder(_Chat)
_completion = msgspec.json.Decoder(_Completion)
_embedding = msgspec.json.Decoder(_Embedding)
_response = msgspec.json.Decoder(_Response)
_other = msgspec.json.Decoder(_Other)


def parse(path: str, body: bytes) -> Call:
    if path == EMBEDDINGS:
        asked = decode(_embedding, body)
        return Call(
            dialect=Dialect.OPENAI, path=path, model=asked.model, stream=False, body=body, capability="embedding"
        )
    head = decode(_chat, body) if path == CHAT else decode(_completion, body)
    return Call(dialect=Dialect.OPENAI, path=path, model=head.model, stream=head.stream is True, body=body)


def parse_response(path: str, body: bytes) -> Call:
    """Read a request for a response.

    One that goes on from an earlier response is for who keeps that: a 404 is no missing path then.
    """
    asked = decode(_response, body)
    return Call(
        dialect=Dialect.OPENAI,
        path=path,
        model=asked.model,
        stream=asked.stream is True,
        body=body,
        optional=asked.previous_response_id is None,
    )


def parse_other(path: str, body: bytes) -> Call:
    """Read what only some engines offer. What their models can is not in their lists, so any with the model may try."""
    asked = decode(_other, body)
    return Call(
        dialect=Dialect.OPENAI,
        path=path,
        model=asked.model,
        stream=asked.stream is True,
        body=body,
        capability="",
        optional=True,
    )


def parse_form(path: str, body: bytes) -> Call:
    form = read_form(body)
    model = form.text(body, "model")
    if not model:
        raise InvalidInput("the form must have the field model", field="model")
    return Call(
        dialect=Dialect.OPENAI,
        path=path,
        model=model,
        stream=flag(form.text(body, "stream")),
        body=body,
        capability="",
        content_type=form.content_type,
        optional=True,
    )


def error(problem: MusterError) -> dict[str, Any]:
    status = problem.http_status
    fallback = "server_error" if status >= _FIRST_SERVER_ERROR else "invalid_request_error"
    return {
        "error": {
            "message": problem.message,
            "type": problem.code if isinstance(problem, QuotaExceeded) else _ERROR_TYPES.get(status, fallback),
            "param": problem.field,
            "code": problem.code,
        }
    }


def error_frame(problem: MusterError) -> bytes:
    """End the event that may be open, then say what went wrong; no [DONE] follows."""
    return b"\ndata: " + msgspec.json.encode(error(problem)) + b"\n\n"


def model_list(models: list[Model]) -> dict[str, Any]:
    return {"object": "list", "data": [model_object(model) for model in models]}


def model_object(model: Model) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": (model.modified_at_ms or 0) // 1000,
        "owned_by": "muster",
    }
