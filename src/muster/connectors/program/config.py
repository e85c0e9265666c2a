"""What the node's file says of a program: its words, what may take the place of some, and what it may use up."""

import re
from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta, Struct

from muster.domain.file import parse_file_url
from muster.errors import InvalidInput

DIR = "dir"  # stands for the attempt's own directory
FILE = "file"
_TEXT = "text"
_KINDS = (_TEXT, "int", "float", "bool", FILE)
_PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*)(?::([^{}]+))?\}")
_TEMPORARY = 75  # EX_TEMPFAIL of sysexits.h

Value = str | int | float | bool
Megabytes = Annotated[int, Meta(ge=1, le=16 * 1024**2)]


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`memory_mb` and `cpu_percent` (100 is one core) are for all its processes, by a cgroup where there is one.

    Without a cgroup each process has `memory_mb` of address space, and `cpu_percent` counts for nothing.
    """

    memory_mb: Megabytes | None = None
    cpu_percent: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    cpu_s: Annotated[int, Meta(ge=1)] | None = None
    open_files: Annotated[int, Meta(ge=16)] = 1024
    file_mb: Megabytes = 4096


class Program(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[program]]` of a node's file. Jobs ask for it as `command:NAME`.

    `command` are its words, with no shell. `{name}` takes the payload's `args.name`, with a kind if need be: `{n:int}`,
    `{x:float}`, `{on:bool}`, `{in:file}` (a file of the fleet, fetched first), `{mode:fast|good}`; `{dir}` is the
    directory it runs in. `result` is the name of the file with the result, empty: its last line. `keep` are patterns
    of files to keep.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    command: Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(min_length=1)]
    env: dict[str, str] = {}
    result: Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")] = ""
    keep: tuple[Annotated[str, Meta(pattern=r"^[A-Za-z0-9*?._\[\]-]+$")], ...] = ()
    limits: Limits = Limits()
    cgroup: Annotated[str, Meta(pattern="^/sys/fs/cgroup/")] | None = None
    timeout_s: Annotated[float, Meta(gt=0, le=604_800)] = 3600.0
    stop_s: Annotated[float, Meta(ge=0, le=60)] = 0.5
    output_bytes_max: Annotated[int, Meta(ge=1024)] = 16_777_216
    retried_exits: tuple[Annotated[int, Meta(ge=1, le=255)], ...] = (_TEMPORARY,)

    def problem(self) -> str | None:
        for name, kind in self.placeholders():
            if kind not in _KINDS and "|" not in kind:
                return (
                    f"{{{name}:{kind}}}: a placeholder is of the kind {', '.join(_KINDS)}, or of words with | between"
                )
        if _PLACEHOLDER.search(self.command[0]):
            return "the program itself cannot be a placeholder"
        return None

    def placeholders(self) -> Iterator[tuple[str, str]]:
        """Tell name and kind of each, but `{dir}`."""
        for word in self.command:
            for name, kind in _PLACEHOLDER.findall(word):
                if name != DIR:
                    yield name, kind or _TEXT

    def words(self, values: dict[str, str], directory: str) -> list[str]:
        known = values | {DIR: directory}
        return [_PLACEHOLDER.sub(lambda match: known[match[1]], word) for word in self.command]

    def read_args(self, args: dict[str, Value]) -> tuple[dict[str, str], dict[str, str]]:
        """Return the values as they are spelled, and the files' addresses by name; InvalidInput names what is wrong."""
        kinds = dict(self.placeholders())
        if unknown := sorted(set(args) - set(kinds)):
            raise InvalidInput(
                f"payload.args.{unknown[0]}: {self.name} does not take it; it takes {', '.join(kinds) or 'nothing'}",
                field=f"payload.args.{unknown[0]}",
            )
        if missing := [name for name in kinds if name not in args]:
            raise InvalidInput(
                f"payload.args.{missing[0]} is missing: {self.name} needs it", field=f"payload.args.{missing[0]}"
            )
        values = {name: _spelled(name, kind, args[name]) for name, kind in kinds.items()}
        self._check_beginnings(values, kinds)
        return values, {name: values[name] for name, kind in kinds.items() if kind == FILE}

    def _check_beginnings(self, values: dict[str, str], kinds: dict[str, str]) -> None:
        """Keep a text from passing for an option."""
        for word in self.command:
            match = _PLACEHOLDER.match(word)
            if match and kinds.get(match[1]) == _TEXT and values[match[1]].startswith("-"):
                raise InvalidInput(f"payload.args.{match[1]} must not begin with -", field=f"payload.args.{match[1]}")


class ProgramCall(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job's payload: what takes the place of the placeholders, and what the program reads from its input."""

    args: dict[str, Value] = {}
    stdin: str | None = None


def _spelled(name: str, kind: str, value: Any) -> str:
    field = f"payload.args.{name}"
    fits = {
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "bool": isinstance(value, bool),
    }.get(kind, isinstance(value, str))
    if not fits:
        raise InvalidInput(f"{field} must be {kind}, got {value!r}", field=field)
    if "|" in kind and value not in kind.split("|"):
        raise InvalidInput(f"{field} must be one of {', '.join(kind.split('|'))}, got {value!r}", field=field)
    if kind == FILE:
        parse_file_url(value, field)
    if isinstance(value, str) and "\0" in value:
        raise InvalidInput(f"{field} has a character that no program can be given", field=field)
    return str(value).lower() if isinstance(value, bool) else str(value)
