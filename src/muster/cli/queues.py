from typing import Annotated
from urllib.parse import quote

import typer

from muster.cli.client import Client
from muster.cli.options import AsJson, ServerUrl
from muster.cli.tables import Column, Row, console, duration, print_json, show_rows

queues = typer.Typer(invoke_without_command=True, help="Look at the queues, pause and resume them.")

QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE", help="The service whose jobs it holds; `all`.")]


@queues.callback()
def list_queues(context: typer.Context, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """List what waits and runs, how fast, and what is paused."""
    if context.invoked_subcommand is not None:
        return
    found = Client.find(server).get("/api/queues")
    if as_json:
        print_json(found)
        return
    note = "All queues are paused; go on: muster queues resume all" if found["all_paused"] else ""
    show_rows(found["queues"], _COLUMNS, empty="No queues: nothing was submitted yet.", note=note)


@queues.command()
def pause(queue: QueueArgument, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """Have workers claim nothing more of a queue; what runs goes on."""
    _switch(queue, "pause", "is paused", as_json=as_json, server=server)


@queues.command()
def resume(queue: QueueArgument, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """Let a paused queue go on."""
    _switch(queue, "resume", "goes on", as_json=as_json, server=server)


def _switch(queue: str, action: str, words: str, *, as_json: bool, server: str | None) -> None:
    answer = Client.find(server).post(f"/api/queues/{quote(queue, safe='')}/{action}")
    if as_json:
        print_json(answer["queue"])
    else:
        console().print(f"{queue} {words}", markup=False)


def _age(row: Row) -> str | None:
    return None if row["oldest_age_s"] is None else duration(row["oldest_age_s"])


_COLUMNS = (
    Column("queue", lambda row: row["name"]),
    Column("state", lambda row: "paused" if row["paused"] else "open"),
    Column("waiting", lambda row: row["waiting"], right=True),
    Column("of those unworkable", lambda row: row["unworkable"] or None, right=True),
    Column("running", lambda row: row["running"], right=True),
    Column("oldest", _age, right=True),
    Column("in/min", lambda row: f"{row['submitted_per_min']:.1f}", right=True),
    Column("done/min", lambda row: f"{row['completed_per_min']:.1f}", right=True),
    Column("failed/min", lambda row: f"{row['failed_per_min']:.1f}", right=True),
)
