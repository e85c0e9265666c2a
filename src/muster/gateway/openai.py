"""OpenAI's dialect: what is read of a request, and how lists and errors look."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from muster.domain.model import Model
from muster.domain.service import Dialect
from muster.errors import MusterError, QuotaExceeded
from muster.gateway.call import Call, decode

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
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


_chat = msgspec.json.Decoder(_Chat)
_completion = msgspec.json.Decoder(_Completion)
_embedding = msgspec.json.Decoder(_Embedding)


def parse(path: str, body: bytes) -> Call:
    if path == EMBEDDINGS:
        asked = decode(_embedding, body)
        return Call(
            dialect=Dialect.OPENAI, path=path, model=asked.model, stream=False, body=body, capability="embedding"
        )
    head = decode(_chat, body) if path == CHAT else decode(_completion, body)
    return Call(dialect=Dialect.OPENAI, path=path, model=head.model, stream=head.stream is True, body=body)


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
