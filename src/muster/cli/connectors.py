from typing import Annotated, Any

import typer

from muster.cli.client import Client
from muster.cli.options import AsJson, ServerUrl
from muster.cli.tables import Column, Row, console, print_json, show_facts, show_rows
from muster.errors import NotFound

connectors = typer.Typer(invoke_without_command=True, help="Look at the kinds of jobs: their payloads, where they run.")


@connectors.callback()
def list_connectors(context: typer.Context, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """List what jobs can ask for, and how many workers do it now."""
    if context.invoked_subcommand is not None:
        return
    found = Client.find(server).get("/api/connectors")
    if as_json:
        print_json(found)
        return
    rows = [row for entry in found["connectors"] for row in _rows(entry)]
    broken = "; ".join(f"{name} cannot be used: {why}" for name, why in found["broken"].items())
    show_rows(rows, _COLUMNS, empty="No connectors.", note=broken)


@connectors.command()
def show(
    name: Annotated[str, typer.Argument(help="A connector, or what a job asks for: openai, http:thumbs, ...")],
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Show where one runs, and the JSON schema of its payloads."""
    found = Client.find(server).get("/api/connectors")["connectors"]
    entry = next((one for one in found if _is_called(one, name)), None)
    if entry is None:
        known = ", ".join(one["name"] for one in found)
        raise NotFound(f"no connector {name!r}; there are {known}")
    if as_json:
        print_json(entry)
        return
    rows = _rows(entry)
    show_facts([("connector", entry["name"]), ("jobs ask for", [row["service"] for row in rows])])
    for row in rows:
        show_facts([(row["service"], _where(row) or "nobody can run it now")])
    if entry["schema"] is None:
        console().print("This control plane does not know what its payloads look like.", markup=False, style="dim")
    else:
        print_json(entry["schema"])


def _is_called(entry: Row, name: str) -> bool:
    return name in (entry["name"], *entry["provides"], *(place["service"] for place in entry["available"]))


def _rows(entry: Row) -> list[dict[str, Any]]:
    """Return a row for each service that jobs of it can ask for, also where nobody has it."""
    places = {place["service"]: place for place in entry["available"]}
    nowhere = {"workers": 0, "node_ids": []}
    named = dict.fromkeys((*entry["provides"], *places))
    return [{"connector": entry["name"], "service": name} | {**places.get(name, nowhere)} for name in named]


def _where(row: Row) -> str | None:
    if not row["workers"]:
        return None
    workers = f"{row['workers']} worker{'s' if row['workers'] > 1 else ''}"
    return f"{workers} on {', '.join(row['node_ids'])}" if row["node_ids"] else workers


_COLUMNS = (
    Column("jobs ask for", lambda row: row["service"]),
    Column("connector", lambda row: row["connector"]),
    Column("runs now", _where),
)
