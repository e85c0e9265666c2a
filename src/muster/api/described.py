"""The API's description made whole: what can go wrong, who may come in, examples, and the gateway's own paths."""

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from litestar import Request
from litestar.openapi.plugins import JsonRenderPlugin

from muster.access.roles import Right
from muster.access.routes import right_for
from muster.api.examples import GATEWAY, REQUESTS
from muster.ports import JobKind

_LEVELS_MAX = 8
_JSON = "application/json"
_BYTES = "application/octet-stream"
_PROBLEM = {
    "type": "object",
    "description": "What went wrong; `retriable` says whether the same request can do better later.",
    "required": ["code", "message", "retriable"],
    "properties": {
        "code": {"type": "string"},
        "message": {"type": "string"},
        "retriable": {"type": "boolean"},
        "field": {"type": "string", "description": "What of the request it is about."},
        "retry_after_ms": {"type": "integer"},
    },
}
_PROBLEMS = {
    HTTPStatus.BAD_REQUEST: ("The request cannot be: `field` names what of it", "invalid_input"),
    HTTPStatus.UNAUTHORIZED: ("No token, or one that is not known", "unauthorized"),
    HTTPStatus.FORBIDDEN: ("A token without the right to this", "forbidden"),
    HTTPStatus.NOT_FOUND: ("There is no such thing", "not_found"),
    HTTPStatus.CONFLICT: ("It is in a state in which this cannot be", "conflict"),
    HTTPStatus.TOO_MANY_REQUESTS: ("Too much at once: `Retry-After` says when to try again", "queue_full"),
    HTTPStatus.SERVICE_UNAVAILABLE: ("The store is away, or nobody can serve this now", "store_unavailable"),
}
_TEXTS = {
    "node_id": "gpu-node-1",
    "machine_id": "gpu-node-1",
    "worker_id": "gpu-node-1-worker-0",
    "job_id": "job-1m7zhbjcen57wyt3ncqj",
    "task_id": "job-1m7zhbjcen57wyt3ncqj",
    "pool_id": "pool-0",
    "batch_id": "batch-1m7zhbjcen57wyt3ncqj",
    "file_id": "file-1m7zhbjcen57wyt3ncqj",
    "webhook_id": "hook-1m7zhbjcen57wyt3ncqj",
    "delivery_id": "msg-3f0b6a1c9d2e4f5a6b7c8d9e",
    "model": "smollm2-135m",
    "url": "http://10.0.0.5:9200",
    "address": "10.0.0.5",
    "ollama_url": "http://10.0.0.5:11434",
    "connector": "llamacpp",
    "last_seen": "2025-10-01T00:00:00.000Z",
    "registered_at": "2025-10-01T00:00:00.000Z",
}

Schema = dict[str, Any]


class DescribedPlugin(JsonRenderPlugin):
    """`kinds` are asked for with each rendering: the framework is made before there is a control plane."""

    def __init__(self, kinds: Callable[[], Sequence[JobKind]], *, path: str) -> None:
        super().__init__(path=path)
        self._kinds = kinds

    def render(self, request: Request[Any, Any, Any], openapi_schema: Schema) -> bytes:
        return super().render(request, described(openapi_schema, self._kinds()))


def described(schema: Schema, kinds: Sequence[JobKind] = ()) -> Schema:
    """Return a fuller copy."""
    components = schema.get("components", {})
    schemas = _with_payloads(components.get("schemas", {}), kinds)
    paths = {
        path: {
            method: _operation(method, path, operation, schemas) if isinstance(operation, dict) else operation
            for method, operation in operations.items()
        }
        for path, operations in schema["paths"].items()
    }
    for path, operations in GATEWAY.items():
        paths[path] = {method: _of_gateway(method, path, *told) for method, told in operations.items()}
    bearer = {"type": "http", "scheme": "bearer", "description": "A token of this Muster, where one is configured."}
    return schema | {
        "paths": paths,
        "components": components | {"schemas": schemas | {"Problem": _PROBLEM}, "securitySchemes": {"token": bearer}},
        "tags": [*schema.get("tags", ()), {"name": "models", "description": "The gateway, in two dialects"}],
    }


def _with_payloads(schemas: Schema, kinds: Sequence[JobKind]) -> Schema:
    """Show what a job's payload may be. Any other value is allowed too: who runs it may be unknown here."""
    submit = schemas.get("SubmitJob")
    if not kinds or submit is None:
        return schemas
    payloads = {f"Payload_{kind.name}": dict(kind.schema) | {"title": f"Payload of {kind.name}"} for kind in kinds}
    known = [{"$ref": f"#/components/schemas/{name}"} for name in payloads]
    payload = {"description": "What the connector of service_required takes.", "anyOf": [*known, {}]}
    properties = submit["properties"] | {"payload": payload}
    return schemas | payloads | {"SubmitJob": submit | {"properties": properties}}


def example_of(schema: Schema, schemas: Mapping[str, Schema], name: str = "", level: int = 0) -> Any:
    """Make up a value that fits the schema, the same one each time."""
    schema = _settled(schema, schemas)
    given = [*(schema.get("examples") or ()), *(schema.get("enum") or ())]
    given += [schema[key] for key in ("const", "default") if key in schema]
    if given:
        return given[0]
    match schema.get("type"):
        case "object":
            parts = schema.get("properties", {}) if level < _LEVELS_MAX else {}
            return {key: example_of(part, schemas, key, level + 1) for key, part in parts.items()}
        case "array":
            return [example_of(schema.get("items", {}), schemas, name, level + 1)] if level < _LEVELS_MAX else []
        case "string":
            return _TEXTS.get(name, name or "text")
        case "integer" | "number":
            return schema.get("minimum", 1)
        case kind:
            return True if kind == "boolean" else None


def _settled(schema: Schema, schemas: Mapping[str, Schema]) -> Schema:
    """Follow references, and take the first of several ways that is not null."""
    while "$ref" in schema:
        schema = schemas.get(schema["$ref"].rsplit("/", 1)[-1], {})
    for either in ("oneOf", "anyOf"):
        options = [option for option in schema.get(either, ()) if option.get("type") != "null"]
        if options:
            rest = {key: value for key, value in schema.items() if key != either}
            return _settled(rest | options[0], schemas)
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return schema | {"type": next((kind for kind in kinds if kind != "null"), "null")}
    return schema


def _operation(method: str, path: str, operation: Schema, schemas: Mapping[str, Schema]) -> Schema:
    route = f"{method.upper()} {path}"
    responses = {
        status: _with_example(response, schemas)
        for status, response in operation["responses"].items()
        if int(status) < HTTPStatus.BAD_REQUEST
    }
    whole = operation | {"responses": responses | _problems(method, path)}
    if method == "put":  # these read their body as it comes, which the framework does not see
        whole["requestBody"] = {"required": True, "content": {_BYTES: {"schema": {}, "example": "the file's bytes"}}}
    body = operation.get("requestBody")
    if route in REQUESTS or body:
        content = (body or {}).get("content") or {_JSON: {"schema": {"type": "object"}}}
        whole["requestBody"] = (
            {"required": True}
            | (body or {})
            | {
                "content": {
                    kind: media | {"example": REQUESTS.get(route, example_of(media.get("schema", {}), schemas))}
                    for kind, media in content.items()
                }
            }
        )
    return whole if _is_open(method, path) else whole | {"security": [{"token": []}]}


def _with_example(response: Schema, schemas: Mapping[str, Schema]) -> Schema:
    content = response.get("content")
    if not content:
        return response
    return response | {
        "content": {
            kind: media | {"example": example_of(media.get("schema", {}), schemas)} for kind, media in content.items()
        }
    }


def _problems(method: str, path: str) -> Schema:
    wanted = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.BAD_REQUEST}
    if not _is_open(method, path):
        wanted |= {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS}
    if "{" in path or "pool" in path:
        wanted |= {HTTPStatus.NOT_FOUND}
    if method in {"post", "delete"}:
        wanted |= {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}
    return {str(status.value): _problem(status) for status in sorted(wanted)}


def _problem(status: HTTPStatus) -> Schema:
    text, code = _PROBLEMS[status]
    retriable = status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
    example = {"code": code, "message": "what went wrong, and what to do next", "retriable": retriable}
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {_JSON: {"schema": schema, "example": example}}}


def _of_gateway(method: str, path: str, summary: str, request: Any, answer: Any) -> Schema:
    dialect = "OpenAI" if path.startswith("/v1/") else "Ollama"
    problem = (
        {"error": {"message": "no worker has a model 'x'"}} if dialect == "OpenAI" else {"error": "model not found"}
    )
    operation: Schema = {
        "tags": ["models"],
        "summary": summary,
        "operationId": f"{method}{re.sub(r'[^A-Za-z0-9]+', '_', path)}",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"{(\w+)}", path)
        ],
        "security": [{"token": []}],
        "responses": {
            "200": {"description": "The answer", "content": {_JSON: {"schema": {"type": "object"}, "example": answer}}}
        }
        | {
            str(status.value): {
                "description": _PROBLEMS[status][0],
                "content": {_JSON: {"schema": {"type": "object"}, "example": problem}},
            }
            for status in (
                HTTPStatus.BAD_REQUEST,
                HTTPStatus.UNAUTHORIZED,
                HTTPStatus.NOT_FOUND,
                HTTPStatus.SERVICE_UNAVAILABLE,
            )
        },
    }
    if request is not None:
        body = {_JSON: {"schema": {"type": "object"}, "example": request}}
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _is_open(method: str, path: str) -> bool:
    return right_for(method.upper(), path) is Right.OPEN
