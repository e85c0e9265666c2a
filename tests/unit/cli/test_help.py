"""Every command says what it does."""

from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from muster.cli.main import app


def commands() -> Iterator[tuple[str, ...]]:
    def below(command: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name, inner in getattr(command, "commands", {}).items():
            yield from below(inner, (*path, name))

    return below(typer.main.get_command(app), ())


@pytest.mark.parametrize("path", [pytest.param(path, id=" ".join(("muster", *path))) for path in commands()])
def test_every_command_has_its_help(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"])

    assert shown.exit_code == 0, shown.exception
    assert "Usage:" in shown.output
