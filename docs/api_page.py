"""The page of the HTTP API, from the same description that a running Muster gives at /openapi.json."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Never

from msgspec import to_builtins

from muster.access.routes import right_for
from muster.api.asgi import framework
from muster.api.described import described

Schema = dict[str, Any]

HEAD = """\
# HTTP API

{note}

A running Muster describes the same at `/openapi.json`, with every field of every answer, and lists it at `/docs`. What
each right is, and which role has it: [access](../guides/access.md). Errors are one shape everywhere: `code`, `message`,
`retriable`, and `field` where one is to blame; on the OpenAI and Ollama paths they take the shapes of those APIs. Every
answer carries `X-Correlation-Id`.
"""


def _no_plane() -> Never:
    raise LookupError("the API is only described here, never served")


def api_page(note: str) -> str:
    app = framework(_no_plane, Path(), 1)
    schema: Schema = to_builtins(described(app.openapi_schema.to_schema()))
    by_tag: dict[str, list[str]] = {}
    for path, methods in sorted(schema["paths"].items()):
        for method, operation in methods.items():
            if isinstance(operation, dict) and operation.get("tags"):
                told = _operation(method.upper(), path, operation, schema["components"]["schemas"])
                by_tag.setdefault(operation["tags"][0], []).append(told)
    parts = [HEAD.format(note=note)]
    for tag in schema["tags"]:
        if operations := by_tag.get(tag["name"]):
            parts += [f"\n## {tag['name'].capitalize()}\n\n{tag['description']}.\n", *operations]
    return "".join(parts)


def _operation(method: str, path: str, operation: Schema, schemas: Schema) -> str:
    lines = [f"\n### {method} {path}\n\n", f"{operation['summary']}. Right: `{right_for(method, path)}`.\n"]
    if operation.get("description"):
        lines.append(f"\n{operation['description']}\n")
    rows = [*_parameters(operation), *_body(operation, schemas)]
    if rows:
        lines += ["\n| Given | In | Kind | What it is |\n|---|---|---|---|\n", *rows]
    return "".join(lines)


def _parameters(operation: Schema) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        form = parameter.get("schema", {})
        about = parameter.get("description") or form.get("description") or ""
        yield _row(parameter["name"], parameter["in"], about, form, required=parameter.get("required", False))


def _body(operation: Schema, schemas: Schema) -> Iterator[str]:
    for content in operation.get("requestBody", {}).get("content", {}).values():
        body = _followed(content.get("schema", {}), schemas)
        for name, form in body.get("properties", {}).items():
            settled = _followed(form, schemas)
            yield _row(name, "body", settled.get("description", ""), settled, required=name in body.get("required", ()))


def _followed(form: Schema, schemas: Schema) -> Schema:
    if "$ref" in form:
        named: Schema = schemas.get(form["$ref"].rsplit("/", 1)[-1], {})
        return named
    return form


def _row(name: str, place: str, about: str, form: Schema, *, required: bool) -> str:
    words = [about.split("\n\n", 1)[0].replace("\n", " ").replace("|", "\\|").strip().rstrip(".")]
    if form.get("enum"):
        words.append(", ".join(f"`{word}`" for word in form["enum"]))
    if required:
        words.append("needed")
    elif form.get("default") not in (None, "", [], {}):
        words.append(f"default `{form['default']}`")
    return f"| `{name}` | {place} | {_kind(form)} | {'; '.join(filter(None, words))} |\n"


def _kind(form: Schema) -> str:
    if "anyOf" in form or "oneOf" in form:
        kinds = [_kind(way) for way in form.get("anyOf") or form["oneOf"]]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind and kind != "null"))
    if form.get("type") == "array":
        return f"list of {_kind(form.get('items', {})) or 'values'}"
    return str(form.get("type", "object" if "$ref" in form else ""))
