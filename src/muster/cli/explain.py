from typing import Annotated, Any

import typer

from muster.cli.client import Client
from muster.cli.jobs import JobIdArgument, show_explanation
from muster.cli.options import AsJson, ServerUrl
from muster.cli.tables import Column, Row, console, print_json, show_rows
from muster.errors import InvalidInput

explain = typer.Typer(no_args_is_help=True, help="Say where work goes, or why it waits.")


@explain.command()
def model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model (muster models).")],
    pool: Annotated[str | None, typer.Option(help="Only in this pool, service or NODE/SERVICE.")] = None,
    node_id: Annotated[str | None, typer.Option("--node", help="Only on this node.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only with this label.")] = None,
    min_memory_mb: Annotated[int | None, typer.Option(min=0, help="Free GPU memory that it needs, in MB.")] = None,
    capability: Annotated[str, typer.Option(help="completion, embedding, vision or tools.")] = "completion",
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Say which worker a request for a model would get now, and what speaks against the others."""
    wish = {
        "model": name,
        "capability": capability,
        "pool": pool,
        "node_id": node_id,
        "labels": dict(_pair(text) for text in label or ()),
        "min_memory_mb": min_memory_mb,
    }
    answer = Client.find(server).post("/api/v1/explain", {key: value for key, value in wish.items() if value})
    print_json(answer) if as_json else _show(answer)


@explain.command()
def job(job_id: JobIdArgument, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """Say why a job waits: who could run it, and what others lack."""
    explanation = Client.find(server).get(f"/api/jobs/{job_id}/explain")["explanation"]
    print_json(explanation) if as_json else show_explanation(explanation)


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InvalidInput(f"--label takes KEY=VALUE, got {text!r}", field="label")
    return key, value


def _show(answer: dict[str, Any]) -> None:
    console().print(answer["summary"], markup=False)
    show_rows(answer["candidates"], _COLUMNS, empty="")


def _slots(row: Row) -> str | None:
    return None if row["slots"] is None else f"{row['slots'] - (row['slots_busy'] or 0)} of {row['slots']}"


_COLUMNS = (
    Column("worker", lambda row: row["key"]),
    Column("turn", lambda row: row["rank"], right=True),
    Column("free slots", _slots, right=True),
    Column("free GPU memory, MB", lambda row: row["memory_free_mb"], right=True),
    Column("in memory", lambda row: row["resident"]),
    Column("cannot, because", lambda row: "; ".join(reason["reason"] for reason in row["reasons"])),
)
