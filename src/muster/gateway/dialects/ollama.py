"""Ollama's dialect: what is read of a request, and how lists and errors look."""

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from muster.domain.model import Model, canonical_model_name
from muster.domain.service import Dialect
from muster.errors import InvalidInput, ModelNotFound, MusterError
from muster.gateway.dialects.call import Call, decode

CHAT = "/api/chat"
GENERATE = "/api/generate"
EMBED = "/api/embed"
EMBEDDINGS = "/api/embeddings"
SHOW = "/api/show"
PULL = "/api/pull"
PUSH = "/api/push"
CREATE = "/api/create"
COPY = "/api/copy"
DELETE = "/api/delete"
BLOBS = "/api/blobs/"
TAGS = "/api/tags"
PS = "/api/ps"
VERSION = "/api/version"

# Clients look at this to decide what they may ask (Open WebUI refuses below a minimum): the API that was followed.
COMPATIBLE_VERSION = "0.33.0"

# What does not speak it is spoken to in OpenAI's.
SPOKEN_BY = frozenset({Dialect.OLLAMA, Dialect.OPENAI})

# Go's clients show a date far ahead as "Forever": nothing here unloads a model by itself.
_NEVER = "9999-12-31T23:59:59Z"


class _Chat(Struct):
    model: str = ""
    messages: list[Raw] | None = None
    stream: bool | None = None


class _Generate(Struct):
    model: str = ""
    prompt: str | None = None
    images: list[Raw] | None = None
    suffix: str | None = None
    stream: bool | None = None


class _Embed(Struct):
    model: str = ""
    input: str | list[Raw] | None = None


class _Embeddings(Struct):
    model: str = ""
    prompt: str | None = None


class _Show(Struct):
    model: str = ""
    name: Annotated[str, Meta(description="what `model` was called once")] = ""


class _KeepAlive(Struct):
    keep_alive: float | str | None = None


_chat = msgspec.json.Decoder(_Chat)
_generate = msgspec.json.Decoder(_Generate)
_embed = msgspec.json.Decoder(_Embed)
_embeddings = msgspec.json.Decoder(_Embeddings)
_keep_alive = msgspec.json.Decoder(_KeepAlive)
_show = msgspec.json.Decoder(_Show)


def parse(path: str, body: bytes) -> Call:
    """Streaming is on unless it is refused; embeddings never stream."""
    stream: bool | None = False
    capability = "completion"
    empty = False
    if path == CHAT:
        chat = decode(_chat, body)
        model, stream, empty = chat.model, chat.stream, not chat.messages
    elif path == GENERATE:
        generate = decode(_generate, body)
        model, stream = generate.model, generate.stream
        empty = not (generate.prompt or generate.images or generate.suffix)
    else:
        asked = decode(_embed, body) if path == EMBED else decode(_embeddings, body)
        model, capability = asked.model, "embedding"
    return Call(
        dialect=Dialect.OLLAMA,
        path=path,
        model=_named(model),
        stream=stream is not False,
        body=body,
        capability=capability,
        empty=empty,
    )


def parse_show(body: bytes) -> str:
    asked = decode(_show, body)
    return _named(asked.model or asked.name)


def _named(model: str) -> str:
    if not model:
        raise InvalidInput("model is required", field="model")
    return model


def unloads(body: bytes) -> bool:
    """Tell whether a request without a prompt asks to unload the model: its keep_alive is nothing."""
    keep_alive = decode(_keep_alive, body).keep_alive
    return keep_alive == 0 or (isinstance(keep_alive, str) and keep_alive.rstrip("hmsuµn") == "0")


def error(problem: MusterError) -> dict[str, Any]:
    return {"error": problem.message}


def model_not_found(problem: ModelNotFound, model: str) -> MusterError:
    """Clients pull a model when they read these words."""
    return ModelNotFound(f'model "{model}" not found, try pulling it first', field=problem.field)


def error_frame(problem: MusterError) -> bytes:
    return msgspec.json.encode(error(problem)) + b"\n"


def tags(models: list[Model]) -> dict[str, Any]:
    return {
        "models": [
            _entry(model) | {"modified_at": _time(model.modified_at_ms), "capabilities": list(model.capabilities)}
            for model in models
        ]
    }


def ps(models: list[Model]) -> dict[str, Any]:
    """Size in GPU memory is left out: it is not known, and 0 would say that the model runs on the CPU."""
    return {"models": [_running(model) for model in models if model.resident]}


def show(model: Model) -> dict[str, Any]:
    architecture = model.family or "unknown"
    info: dict[str, Any] = {"general.architecture": architecture}
    if model.context_length is not None:
        info[f"{architecture}.context_length"] = model.context_length
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": _details(model),
        "model_info": info,
        "capabilities": list(model.capabilities),
        "modified_at": _time(model.modified_at_ms),
    }


def _entry(model: Model) -> dict[str, Any]:
    entry = {"name": model.name, "model": model.name, "digest": _digest(model), "details": _details(model)}
    return entry if model.size_bytes is None else entry | {"size": model.size_bytes}


def _running(model: Model) -> dict[str, Any]:
    entry = _entry(model) | {"expires_at": _NEVER}
    return entry if model.context_length is None else entry | {"context_length": model.context_length}


def _digest(model: Model) -> str:
    """Ollama's own command line cuts twelve letters off this without looking; that of the name is at least stable."""
    if model.digest:
        return model.digest.removeprefix("sha256:")
    return hashlib.sha256(canonical_model_name(model.name).encode()).hexdigest()


def _details(model: Model) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "",
        "family": model.family or "",
        "families": [model.family] if model.family else [],
        "parameter_size": model.parameter_size or "",
        "quantization_level": model.quantization or "",
    }


def _time(at_ms: int | None) -> str:
    return datetime.fromtimestamp((at_ms or 0) / 1000, UTC).isoformat().replace("+00:00", "Z")
