"""Anthropic's dialect: what is read of a request, and how lists and errors look. Engines that know it answer it."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from muster.domain.model import Model
from muster.domain.service import Dialect
from muster.errors import MusterError
from muster.gateway.dialects.call import Call, decode

MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
VERSION_HEADER = b"anthropic-version"  # which every client of theirs sends

# llama.cpp, vLLM and Ollama have its paths beside OpenAI's; who has not says so when it is asked.
SPOKEN_BY = frozenset({Dialect.ANTHROPIC, Dialect.OPENAI})

_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_FIRST_SERVER_ERROR = 500


class _Messages(Struct):
    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[Raw], Meta(min_length=1)]
    stream: bool | None = None


_messages = msgspec.json.Decoder(_Messages)


def parse(path: str, body: bytes) -> Call:
    asked = decode(_messages, body)
    return Call(
        dialect=Dialect.ANTHROPIC,
        path=path,
        model=asked.model,
        stream=path == MESSAGES and asked.stream is True,
        body=body,
        optional=True,
    )


def error(status: int, text: str) -> dict[str, Any]:
    fallback = "api_error" if status >= _FIRST_SERVER_ERROR else "invalid_request_error"
    return {"type": "error", "error": {"type": _ERROR_TYPES.get(status, fallback), "message": text}}


def error_frame(problem: MusterError) -> bytes:
    """End the event that may be open, then say what went wrong; no message_stop follows."""
    return b"\nevent: error\ndata: " + msgspec.json.encode(error(problem.http_status, problem.message)) + b"\n\n"


def model_list(models: list[Model]) -> dict[str, Any]:
    """All are on the first page."""
    entries = [model_object(model) for model in models]
    ends = {"first_id": entries[0]["id"], "last_id": entries[-1]["id"]} if entries else {}
    return {"data": entries, "has_more": False, "first_id": None, "last_id": None} | ends


def model_object(model: Model) -> dict[str, Any]:
    at = datetime.fromtimestamp((model.modified_at_ms or 0) / 1000, UTC)
    created_at = at.isoformat().replace("+00:00", "Z")
    return {"type": "model", "id": model.name, "display_name": model.name, "created_at": created_at}
