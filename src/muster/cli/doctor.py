from typing import TYPE_CHECKING

import msgspec
import typer

from muster.cli.options import AsJson, DataDir, settings_from
from muster.cli.tables import Column, print_json, show_rows
from muster.errors import SetupError

if TYPE_CHECKING:
    from muster.cli.checks import Finding


def doctor(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Say what this machine has, what is missing and how to get it; exit code 1 when `muster up` could not work."""
    from muster.cli.checks import Level

    findings = _examine(data_dir)
    if as_json:
        print_json(msgspec.to_builtins(findings))
    else:
        show_rows(msgspec.to_builtins(findings), _COLUMNS, empty="")
    if any(finding.level is Level.MISSING for finding in findings):
        raise typer.Exit(1)


def _examine(data_dir: str | None) -> "list[Finding]":
    from muster.cli.checks import CHECKS, Finding, Level

    try:
        settings = settings_from(data_dir=data_dir)
    except SetupError as error:
        return [Finding("settings", Level.MISSING, error.message, error.next_step)]
    good = Finding("settings", Level.OK, "all names are known and fit together")
    return [good, *(finding for check in CHECKS for finding in check(settings))]


_COLUMNS = (
    Column("", lambda row: row["level"]),
    Column("what", lambda row: row["what"]),
    Column("found", lambda row: row["found"]),
    Column("how to get it", lambda row: row["next_step"] or ""),
)
