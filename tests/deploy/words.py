"""What Muster itself knows: its settings' names and its command line."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import typer.main
from typer.core import TyperGroup

from muster.cli.main import app
from muster.settings import SEED_NAMES, Settings

_ASSIGNED = re.compile(r"^#?([A-Z][A-Z0-9_]*)=(.*)$")


def is_setting(name: str) -> bool:
    if name.startswith("MUSTER_"):
        return name.removeprefix("MUSTER_").lower() in Settings.__struct_fields__
    return name in SEED_NAMES


def unknown_settings(environment: Mapping[str, object] | Sequence[str], known: Sequence[str] = ()) -> list[str]:
    return [name for name in environment if not is_setting(name) and name not in known]


def environment_file(text: str) -> dict[str, str]:
    """Return what an EnvironmentFile sets, lines that are off included."""
    return {found[1]: found[2] for line in text.splitlines() if (found := _ASSIGNED.match(line))}


def check_command(words: Sequence[str]) -> None:
    """Fail unless `muster WORDS` is a command with these options."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while isinstance(command, TyperGroup):
        name = rest.pop(0)
        assert name in command.commands, f"muster has no command {' '.join(words)}"
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert [word for word in rest if word.startswith("--") and word.partition("=")[0] not in known] == []
