"""What Muster itself knows: its settings' names and its command line."""

import re
from collections.abc import Mapping, Sequence

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
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    command = group.commands.get(words[0])
    assert command is not None, f"muster has no command {words[0]}"
    known = {option for parameter in command.params for option in parameter.opts}
    assert [word for word in words[1:] if word.startswith("--") and word not in known] == []
