"""The commands that every agent knows: what each needs, and whether another life of the agent may carry it out."""

import difflib
import re
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from muster.errors import InvalidInput

LINES_MAX = 2_000
_WORDS_MAX = 64
_TEXT_CHARS_MAX = 4_096
_PREFIX = re.compile(r"^(command_?type_?|cmd_|command_)")


class Arg(Struct, frozen=True):
    name: str
    form: Literal["text", "lines", "words"] = "text"
    required: bool = False


class Kind(Struct, frozen=True, kw_only=True):
    """`for_any_boot`: to do it twice does no harm, so an agent that was restarted meanwhile carries it out as well."""

    about: str
    args: tuple[Arg, ...] = ()
    for_any_boot: bool = True
    timeout_s: float = 60.0


KINDS: dict[str, Kind] = {
    "status": Kind(about="tell phase, workers and services"),
    "drain": Kind(about="take no new work", args=(Arg("reason"),)),
    "resume": Kind(about="take work again", args=(Arg("reason"),)),
    "shutdown": Kind(about="leave the fleet and exit", args=(Arg("reason"),), for_any_boot=False),
    "restart_service": Kind(
        about="stop and start a service", args=(Arg("service", required=True),), for_any_boot=False, timeout_s=300.0
    ),
    "stop_service": Kind(
        about="stop a service until it is restarted", args=(Arg("service", required=True),), for_any_boot=False
    ),
    "pull_model": Kind(
        about="fetch a model; from=fleet: only from another node",
        args=(Arg("model", required=True), Arg("service"), Arg("from")),
        timeout_s=3600.0,
    ),
    "remove_model": Kind(
        about="delete a model from the disk", args=(Arg("model", required=True), Arg("service")), for_any_boot=False
    ),
    "load_model": Kind(
        about="take a model into memory, once those are out that unload names as SERVICE/MODEL",
        args=(Arg("model", required=True), Arg("service"), Arg("unload", "words")),
        timeout_s=300.0,
    ),
    "pin_model": Kind(about="keep a model in memory", args=(Arg("model", required=True),)),
    "unpin_model": Kind(about="keep a model in memory no longer than others", args=(Arg("model", required=True),)),
    "unload_model": Kind(
        about="take a model out of memory", args=(Arg("model", required=True), Arg("service")), for_any_boot=False
    ),
    "cancel_job": Kind(about="cancel a job and stop it at once", args=(Arg("job_id", required=True),)),
    "logs": Kind(about="show the last lines of a service", args=(Arg("service", required=True), Arg("lines", "lines"))),
    "exec": Kind(
        about="run a program that the node's own file allows by name",
        args=(Arg("name", required=True), Arg("args", "words")),
        for_any_boot=False,
    ),
}


def command_name(given: str) -> str:
    """Return the one spelling of a command: any case, dashes, and the names of enums are understood."""
    name = re.sub(r"[\s-]+", "_", given.strip()).lower()
    name = name if name in KINDS else _PREFIX.sub("", name)
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise InvalidInput(f"there is no command {given!r}{meant}; known are {', '.join(KINDS)}", field="command")
    return name


def check_args(name: str, given: Mapping[str, Any]) -> None:
    """Refuse what the command cannot be carried out with; InvalidInput names the argument."""
    kind = KINDS[name]
    known = {arg.name: arg for arg in kind.args}
    for key in given:
        if key not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise InvalidInput(f"{name} has no argument {key!r}; {takes}", field=f"args.{key}")
    for arg in kind.args:
        if arg.name in given:
            _check_form(arg, given[arg.name])
        elif arg.required:
            raise InvalidInput(f"{name} needs the argument {arg.name!r}", field=f"args.{arg.name}")


def _check_form(arg: Arg, value: Any) -> None:
    field = f"args.{arg.name}"
    match arg.form:
        case "text" if not isinstance(value, str) or not 0 < len(value) <= _TEXT_CHARS_MAX:
            raise InvalidInput(f"{field} must be a text of 1 to {_TEXT_CHARS_MAX} characters", field=field)
        case "lines" if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= LINES_MAX:
            raise InvalidInput(f"{field} must be a number from 1 to {LINES_MAX}, got {value!r}", field=field)
        case "words" if not _are_words(value):
            raise InvalidInput(f"{field} must be a list of at most {_WORDS_MAX} texts", field=field)
        case _:
            return


def _are_words(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _WORDS_MAX
        and all(isinstance(word, str) and len(word) <= _TEXT_CHARS_MAX and "\0" not in word for word in value)
    )
