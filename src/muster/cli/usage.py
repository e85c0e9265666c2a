from typing import Annotated

import typer

from muster.cli.client import Client
from muster.cli.options import AsJson, ServerUrl
from muster.cli.tables import Column, Row, duration, print_json, show_rows


def usage(
    since: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="First day, like 2026-03-01; otherwise 30 days ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="DAY", help="The day after the last.")] = None,
    by: Annotated[
        str, typer.Option(metavar="PARTS", help="What to tell apart, with commas: token, model, day, hour.")
    ] = "token,model",
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV, for a spreadsheet.")] = False,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Show what was used: requests, tokens, time, energy; needs an admin's token."""
    asked = {name: value for name, value in (("from", since), ("to", until), ("by", by)) if value is not None}
    client = Client.find(server)
    if as_csv:
        with client.open("GET", "/api/v1/usage", query=asked | {"format": "csv"}) as answer:
            print(answer.read().decode(), end="")
        return
    rows = _all(client, asked)
    if as_json:
        print_json(rows)
        return
    told = {part.strip() for part in by.split(",")}
    columns = [column for part, column in _TOLD_APART if part in told or (part == "day" and "hour" in told)]
    show_rows(rows, (*columns, *_FIGURES), empty="Nothing was used in that time.")


def _all(client: Client, asked: dict[str, str]) -> list[Row]:
    rows: list[Row] = []
    while True:
        answer = client.get("/api/v1/usage", **asked, page=len(rows) // _PAGE + 1, limit=_PAGE)
        rows += answer["usage"]
        if not answer["usage"] or len(rows) >= answer["total"]:
            return rows


def _whose(row: Row) -> str:
    return f"{row['token_name']} ({row['token']})" if row["token_name"] else str(row["token"])


def _energy(row: Row) -> str | None:
    return None if row["watt_hours"] is None else f"{row['watt_hours']:.1f} Wh"


def _requests(row: Row) -> str:
    estimated = row["requests_estimated"]
    return f"{row['requests']} ({estimated} estimated)" if estimated else str(row["requests"])


_PAGE = 1000
_TOLD_APART = (
    ("day", Column("when", lambda row: row["at"])),
    ("token", Column("token", _whose)),
    ("model", Column("model", lambda row: row["model"])),
)
_FIGURES = (
    Column("requests", _requests, right=True),
    Column("prompt", lambda row: row["prompt_tokens"], right=True),
    Column("completion", lambda row: row["completion_tokens"], right=True),
    Column("tokens", lambda row: row["tokens"], right=True),
    Column("worker time", lambda row: duration(row["worker_s"]), right=True),
    Column("energy", _energy, right=True),
)
