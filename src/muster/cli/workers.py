import re
from typing import Annotated

import typer

from muster.cli.client import Client
from muster.cli.options import AsJson, Limit, Page, ServerUrl
from muster.cli.tables import Column, Row, print_json, show_rows

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(MB|GB|MiB|GiB)?", re.IGNORECASE)
_MB_EACH = {"": 1, "mb": 1, "mib": 1, "gb": 1024, "gib": 1024}  # as GPUs are sold


def megabytes(text: str) -> int:
    """Parse 4GB, 512MB or a number of MB."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"must be like 4GB or 512MB, got {text!r}")
    return round(float(found.group(1)) * _MB_EACH[(found.group(2) or "").casefold()])


def workers(
    idle: Annotated[bool, typer.Option("--idle", help="Only those that are known to do nothing.")] = False,
    model: Annotated[str | None, typer.Option(help="Only those that have this model.")] = None,
    free_vram: Annotated[
        int | None,
        typer.Option(
            "--free-vram", metavar="SIZE", parser=megabytes, help="Only those with more GPU memory free: 4GB."
        ),
    ] = None,
    page: Page = 1,
    limit: Limit = 100,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """List the workers: who takes jobs, and which."""
    query = {"idle": "true" if idle else None, "model": model, "free_vram_mb": free_vram, "page": page, "limit": limit}
    rows, headers = Client.find(server).request("GET", "/api/v1/workers", query=query)
    if as_json:
        print_json(rows)
        return
    total = int(headers.get("x-total-count", len(rows)))
    more = f"{len(rows)} of {total}; more: muster workers --page {page + 1}" if page * limit < total else ""
    filtered = idle or model is not None or free_vram is not None
    empty = "No worker is like that." if filtered else "No workers. They come with a node: muster nodes"
    show_rows(rows, _COLUMNS, empty=empty, note=more)


def _free(row: Row) -> str | None:
    free_mb = row.get("gpu_memory_free_mb")
    return None if free_mb is None else f"{free_mb / 1024:.1f} GB"


_COLUMNS = (
    Column("worker", lambda row: row["worker_id"]),
    Column("status", lambda row: row["status"]),
    Column("slots", lambda row: row.get("slots"), right=True),
    Column("gpu", lambda row: row.get("gpu_index"), right=True),
    Column("load %", lambda row: row.get("gpu_utilization_percent"), right=True),
    Column("vram free", _free, right=True),
    Column("connectors", lambda row: row.get("connectors")),
    Column("running", lambda row: row.get("current_jobs")),
    Column("done", lambda row: row.get("jobs_completed"), right=True),
    Column("failed", lambda row: row.get("jobs_failed"), right=True),
)
