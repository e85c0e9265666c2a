from muster.cli.client import Client
from muster.cli.options import AsJson, Limit, Page, ServerUrl
from muster.cli.tables import Column, print_json, show_rows


def workers(page: Page = 1, limit: Limit = 100, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """List the workers: who takes jobs, and which."""
    rows, headers = Client.find(server).request("GET", "/api/v1/workers", query={"page": page, "limit": limit})
    if as_json:
        print_json(rows)
        return
    total = int(headers.get("x-total-count", len(rows)))
    more = f"{len(rows)} of {total}; more: muster workers --page {page + 1}" if page * limit < total else ""
    show_rows(rows, _COLUMNS, empty="No workers. They come with a node: muster nodes", note=more)


_COLUMNS = (
    Column("worker", lambda row: row["worker_id"]),
    Column("status", lambda row: row["status"]),
    Column("slots", lambda row: row.get("slots"), right=True),
    Column("gpu", lambda row: row.get("gpu_index"), right=True),
    Column("connectors", lambda row: row.get("connectors")),
    Column("running", lambda row: row.get("current_jobs")),
    Column("done", lambda row: row.get("jobs_completed"), right=True),
    Column("failed", lambda row: row.get("jobs_failed"), right=True),
)
