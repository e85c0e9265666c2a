"""Write docs/reference/settings.md, cli.md and api.md from the code (`make docs`); a test holds them against it."""

import inspect
import os
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import typer
from docs.api_page import api_page
from msgspec.inspect import Metadata, StructType, type_info
from typer.models import ArgumentInfo

from muster.cli.main import app
from muster.settings import SEED_NAMES, Settings

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Made by `make docs`; change the code it is made from. -->"

SETTINGS_HEAD = f"""\
# Settings

{NOTE}

Every setting is a flag of some command, an environment variable, or a line in `muster.toml` in the directory where
`muster` starts; the first of these that gives it wins. An unknown name is an error that names the nearest known one.
Times are in seconds, sizes in bytes, unless the name says otherwise.

```toml
# muster.toml
listen = "127.0.0.1:8090"
heartbeat_interval_s = 5
```

`MUSTER_DEBUG=1` shows tracebacks; it is no setting of the file.

| Setting | Environment | Default | What it is |
|---|---|---|---|
"""

CLI_HEAD = f"""\
# Commands

{NOTE}

`muster COMMAND --help` says the same. Lists are tables for people and, with `--json`, JSON for programs. Exit codes:
0 done, 1 it did not work (the reason and a next step are on standard error), 2 wrong usage.
"""


def settings_page() -> str:
    older: dict[str, list[str]] = {}
    for name, setting in SEED_NAMES.items():
        older.setdefault(setting, []).append(f"`{name}`")
    rows = []
    kind = type_info(Settings)
    assert isinstance(kind, StructType)
    for field in kind.fields:
        names = ", ".join([f"`MUSTER_{field.name.upper()}`", *older.get(field.name, [])])
        rows.append(f"| `{field.name}` | {names} | {_default(field.name)} | {_description(field.type)} |\n")
    return SETTINGS_HEAD + "".join(rows)


def _default(name: str) -> str:
    value = getattr(Settings(), name)
    if value == "":
        return "empty"
    return f"`{_plain(value)}`".replace(str(Path.home()), "~")


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _description(kind: Any) -> str:
    """Bounds are part of what a person must know."""
    schema = kind.extra_json_schema or {} if isinstance(kind, Metadata) else {}
    text = schema.get("description", "")
    inner = kind.type if isinstance(kind, Metadata) else kind
    least, above, most = (getattr(inner, bound, None) for bound in ("ge", "gt", "le"))
    bounds = [
        f"at least {least}" if least is not None else "",
        f"above {above}" if above is not None else "",
        f"at most {most}" if most is not None else "",
    ]
    said = ", ".join(filter(None, bounds))
    return _cell(f"{text} ({said})" if said else text)


def cli_page() -> str:
    return CLI_HEAD + "".join(_section(path, callback) for path, callback in _commands(app, "muster"))


def _commands(group: typer.Typer, path: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    for command in group.registered_commands:
        if command.callback is not None:
            yield f"{path} {command.name or command.callback.__name__}", command.callback
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            yield from _commands(inner.typer_instance, f"{path} {inner.name}")


def _section(path: str, command: Callable[..., Any]) -> str:
    arguments, rows = [], []
    for name, parameter in inspect.signature(command).parameters.items():
        kind, info = get_args(parameter.annotation)
        required = parameter.default is inspect.Parameter.empty
        if isinstance(info, ArgumentInfo):
            shown = info.metavar or name.upper()
            arguments.append(shown if required else f"[{shown}]")
        else:
            # Within Annotated, typer takes the first name given for a default.
            names = [*filter(lambda first: isinstance(first, str), [info.default]), *(info.param_decls or [])]
            shown = ", ".join(names or [f"--{name.replace('_', '-')}"])
            shown += "" if kind is bool else f" {info.metavar or _value_of(kind)}"
        if info.help:
            rows.append(f"| `{_cell(shown)}` | {_cell(info.help + _range(info) + _unless(parameter.default))} |\n")
    usage = " ".join([path, *arguments, "[OPTIONS]"])
    table = "\n| | |\n|---|---|\n" + "".join(rows) if rows else ""
    return f"\n## {path}\n\n{inspect.getdoc(command)}\n\n```\n{usage}\n```\n{table}"


def _value_of(kind: Any) -> str:
    (inner,) = [part for part in get_args(kind) if part is not NoneType] or [kind]
    if get_origin(inner) is list:
        (inner,) = get_args(inner)
    if issubclass(inner, StrEnum):
        return "|".join(inner)
    return {str: "TEXT", int: "N", float: "NUMBER"}[inner]


def _range(info: Any) -> str:
    if info.min is None:
        return ""
    return f" From {info.min} to {info.max}." if info.max is not None else f" At least {info.min}."


def _unless(default: object) -> str:
    return "" if default in (None, False, inspect.Parameter.empty) else f" Default: {_plain(default)}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def pages() -> dict[Path, str]:
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):  # defaults are shown as they are without them
        os.environ.pop(name, None)
    return {
        REFERENCE / "settings.md": settings_page(),
        REFERENCE / "cli.md": cli_page(),
        REFERENCE / "api.md": api_page(NOTE),
    }


def main() -> None:
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
