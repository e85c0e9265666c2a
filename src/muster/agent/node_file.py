"""The node file: TOML that says what a machine is and which services it runs."""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from muster.agent.config import ServiceTemplate
from muster.agent.owner.rules import OwnerRules, parse_hours
from muster.agent.services import template
from muster.domain.capability import CustomerAccess
from muster.domain.model import canonical_model_name
from muster.domain.residency import ModelPolicy, ModelRule
from muster.domain.source import parse_source
from muster.errors import InvalidInput, SetupError

T = TypeVar("T", bound=Struct)

_SECTIONS = ("node", "service", "commands", "models", "owner")


class NodeSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[node]`; None where the file says nothing. `attach` has the URL or URLs of each connector's services.

    `models` are fetched and kept although no service names them.

    `customers` says whose jobs its workers take: `{ allow = ["acme"] }`, `{ deny = ["umbrella"], strict = true }`.
    """

    id: str | None = None
    control_plane: str | None = None
    gpus: int | Literal["auto"] | None = None
    node_type: str | None = None
    address: str | None = None
    region: str | None = None
    az: str | None = None
    pool: str | None = None
    labels: dict[str, str] = {}
    heartbeat_interval_s: float | None = None
    worker_slots: int | None = None
    attach: dict[str, str | tuple[str, ...]] = {}
    discover: bool | None = None
    models: tuple[str, ...] = ()
    customers: CustomerAccess = CustomerAccess()

    @property
    def attached(self) -> tuple[tuple[str, str], ...]:
        """Return (connector, url) of each."""
        return tuple(
            (connector, url)
            for connector, urls in self.attach.items()
            for url in ((urls,) if isinstance(urls, str) else urls)
        )


class ModelsSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[models]`: which stay in memory and which may go; with it they are loaded when somebody asks for them.

    Of the services, or connectors, in `share_gpu` one at a time has the memory of a GPU.
    """

    idle_unload_s: Annotated[float, Meta(gt=0)] | None = None
    resident_max: Annotated[int, Meta(ge=1)] | None = None
    pinned: tuple[str, ...] = ()
    share_gpu: tuple[str, ...] = ()
    rule: tuple[ModelRule, ...] = ()

    @property
    def policy(self) -> ModelPolicy:
        ruled = {canonical_model_name(rule.name) for rule in self.rule}
        pinned = {canonical_model_name(name) for name in self.pinned}
        rules = [replace(rule, pinned=rule.pinned or canonical_model_name(rule.name) in pinned) for rule in self.rule]
        rules += [ModelRule(name=name, pinned=True) for name in sorted(pinned - ruled)]
        return ModelPolicy(
            idle_unload_s=self.idle_unload_s,
            resident_max=self.resident_max,
            rules=tuple(rules),
            share_gpu=self.share_gpu,
        )


class NodeFile(Struct, frozen=True, kw_only=True):
    """`sections` are the tables that connectors have a say in, by name.

    `commands` are the programs that the command `exec` may run here, by name: words, the first of them the program.

    Further words that come with the command take the place of the word `{args}`; without it there are none.
    """

    node: NodeSection = NodeSection()
    services: tuple[ServiceTemplate, ...] = ()
    commands: dict[str, tuple[str, ...]] = {}
    models: ModelsSection | None = None
    owner: OwnerRules | None = None
    sections: dict[str, tuple[Any, ...]] = {}


def load_node_file(path: Path, kinds: Mapping[str, type[Struct]] | None = None) -> NodeFile:
    """SetupError names the file, the line and the nearest known key. `kinds` are further tables, as lists."""
    try:
        text = path.read_text()
        values = tomllib.loads(text)
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}", next_step="check the path and its rights") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} is not TOML: {error}", next_step="correct that line") from None
    reader = _Reader(path, text.splitlines())
    kinds = kinds or {}
    reader.check_names(values, (*_SECTIONS, *kinds), "", 0)
    node = reader.read_node(values.get("node", {}))
    services = tuple(
        reader.read_service(entry, number) for number, entry in enumerate(_as_list(values.get("service", [])))
    )
    reader.check_distinct("service", services)
    sections = {}
    for name, kind in kinds.items():
        entries = [reader.read(entry, kind, name, at) for at, entry in enumerate(_as_list(values.get(name, [])))]
        reader.check_distinct(name, entries)
        sections[name] = tuple(entries)
    commands = reader.read_commands(values.get("commands", {}))
    models = reader.read(values["models"], ModelsSection, "models", 0) if "models" in values else None
    owner = reader.read_owner(values["owner"]) if "owner" in values else None
    return NodeFile(node=node, services=services, commands=commands, models=models, owner=owner, sections=sections)


class _Reader:
    def __init__(self, path: Path, lines: list[str]) -> None:
        self._path = path
        self._lines = lines

    def read_node(self, entry: Any) -> NodeSection:
        found = self.read(entry, NodeSection, "node", 0)
        try:
            for model in found.models:
                parse_source(model)
        except InvalidInput as error:
            raise self._error(error.message, "node", 0, "models") from None
        return found

    def read_owner(self, entry: Any) -> OwnerRules:
        found = self.read(entry, OwnerRules, "owner", 0)
        try:
            for text in found.hours:
                parse_hours(text)
        except InvalidInput as error:
            raise self._error(error.message, "owner", 0, "hours") from None
        return found

    def read_service(self, entry: Any, number: int) -> ServiceTemplate:
        found = self.read(entry, ServiceTemplate, "service", number)
        try:
            template.check(found)
        except InvalidInput as error:
            raise self._error(error.message, "service", number, (error.field or "command").split(".")[0]) from None
        return found

    def read_commands(self, entry: Any) -> dict[str, tuple[str, ...]]:
        if not isinstance(entry, Mapping):
            raise self._error("commands must be a table", "commands", 0, "commands")
        for name, words in entry.items():
            if not (isinstance(words, list) and words and all(isinstance(word, str) and word for word in words)):
                raise self._error(
                    f'{name} must be a list of words, the program first: {name} = ["df", "-h"]', "commands", 0, name
                )
        return {name: tuple(words) for name, words in entry.items()}

    def read(self, entry: Any, kind: type[T], section: str, number: int) -> T:
        if not isinstance(entry, Mapping):
            raise self._error(f"{section} must be a table", section, number, section)
        self.check_names(entry, kind.__struct_fields__, section, number)
        try:
            return msgspec.convert(entry, kind)
        except msgspec.ValidationError as error:
            text, _, place = str(error).partition(" - at `$.")
            named = re.search(r"field `([^`]+)`", text)
            key = re.split(r"[.\[`]", place)[0] or (named.group(1) if named else "")
            raise self._error(f"{key}: {text}" if place else text, section, number, key) from None

    def check_names(self, entry: Mapping[str, Any], known: tuple[str, ...], section: str, number: int) -> None:
        for key in entry:
            if key not in known:
                nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
                where = f"[{section}]" if section else "the file"
                raise self._error(
                    f"unknown key {key} in {where}; the nearest known one is {nearest}", section, number, key
                )

    def check_distinct(self, section: str, entries: Sequence[Any]) -> None:
        names = [entry.name for entry in entries]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise self._error(f"two of [[{section}]] are named {name}", section, number, "name")

    def _error(self, problem: str, section: str, number: int, key: str) -> SetupError:
        line = self._line(section, number, key)
        place = f"{self._path}, line {line}" if line else str(self._path)
        return SetupError(f"{place}: {problem}", next_step="correct that line")

    def _line(self, section: str, number: int, key: str) -> int | None:
        """Return the line of a key, else of its section's head. TOML's own reader does not tell lines."""
        wanted = re.compile(rf"\s*(\[+\s*({section}\s*\.\s*)?)?[\"']?{re.escape(key)}\b")
        heads = [at for at, line in enumerate(self._lines) if section and re.match(rf"\s*\[+\s*{section}\s*\]", line)]
        if section and number >= len(heads):
            return None
        begin = heads[number] if section else 0
        end = heads[number + 1] if section and number + 1 < len(heads) else len(self._lines)
        found = (at for at in range(begin, end) if wanted.match(self._lines[at]))
        at = next(found, begin if section else None)
        return None if at is None else at + 1


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
