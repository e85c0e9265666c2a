"""Connectors of other packages: classes that they name in the entry point group `muster.connectors`.

One that cannot be used is told of by name; it must not keep the others, or the whole agent, from working.
"""

import inspect
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import structlog
from msgspec import Struct, field

from muster.errors import InvalidInput
from muster.ids import check_name

log = structlog.get_logger()

GROUP = "muster.connectors"


class Plugins(Struct, frozen=True, kw_only=True):
    """`kinds` are classes, made with an aiohttp session; `broken` says why the others are not there."""

    kinds: Mapping[str, type[Any]] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)


def load_plugins(taken: Iterable[str], found: Iterable[EntryPoint] | None = None) -> Plugins:
    """`taken` are names of connectors that are there already."""
    kinds: dict[str, type[Any]] = {}
    broken: dict[str, str] = {}
    for entry in entry_points(group=GROUP) if found is None else found:
        try:
            kind = entry.load()
            _check(kind, {*taken, *kinds})
        except Exception as error:  # noqa: BLE001 - it is foreign code: whatever it raises is its own affair
            problem = error.message if isinstance(error, InvalidInput) else f"{type(error).__name__}: {error}"
            broken[entry.name] = f"the connector {entry.name} ({entry.value}) cannot be used: {problem}"
            log.warning("connector_broken", connector=entry.name, source=entry.value, error=problem)
        else:
            kinds[kind.name] = kind
    return Plugins(kinds=kinds, broken=broken)


def _check(kind: Any, taken: set[str]) -> None:
    if not isinstance(kind, type):
        raise InvalidInput("it is not a class")
    name, provides = getattr(kind, "name", None), getattr(kind, "provides", None)
    if not isinstance(name, str):
        raise InvalidInput("its `name` must be a text")
    check_name(name, "name")
    if name in taken:
        raise InvalidInput(f"there is a connector {name!r} already")
    if not isinstance(provides, tuple) or provides[:1] != (name,):
        raise InvalidInput("its `provides` must be a tuple that begins with its name")
    if not isinstance(getattr(kind, "needs_service", None), bool):
        raise InvalidInput("its `needs_service` must be True or False")
    _check_methods(kind)


def _check_methods(kind: type[Any]) -> None:
    for method in ("check", "schema", "probe", "run"):
        if not callable(getattr(kind, method, None)):
            raise InvalidInput(f"it has no `{method}`")
    for method in ("probe", "run"):
        if not inspect.iscoroutinefunction(getattr(kind, method)):
            raise InvalidInput(f"its `{method}` must be `async def`")
    if not isinstance(kind.schema(), dict):
        raise InvalidInput("its `schema()` must return a JSON schema, and without an instance")
