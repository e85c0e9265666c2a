from muster.cli.client import Client
from muster.cli.options import AsJson, ServerUrl
from muster.cli.tables import Column, Row, print_json, show_rows, size


def models(as_json: AsJson = False, server: ServerUrl = None) -> None:
    """List the models that are served, by whom, and who takes no work and why (`muster model ls`: who keeps what)."""
    rows = Client.find(server).get("/api/v1/models", served="true")
    if as_json:
        print_json(rows)
        return
    show_rows(
        rows,
        _COLUMNS,
        empty="No models. `muster nodes` says what each machine is doing and what it lacks.",
    )


def _ready_on(row: Row) -> list[str]:
    return [holder["node_id"] for holder in row.get("nodes", []) if holder.get("accepts_work", True)]


def _not_on(row: Row) -> list[str]:
    return [
        f"{holder['node_id']}: {'; '.join(holder.get('reasons', [])) or 'takes no work'}"
        for holder in row.get("nodes", [])
        if not holder.get("accepts_work", True)
    ]


_COLUMNS = (
    Column("model", lambda row: row["name"]),
    Column("size", lambda row: size(row.get("size_bytes")), right=True),
    Column("parameters", lambda row: row.get("parameter_size"), right=True),
    Column("quantization", lambda row: row.get("quantization")),
    Column("context", lambda row: row.get("context_length"), right=True),
    Column("can", lambda row: row.get("capabilities")),
    Column("ready on", _ready_on),
    Column("not on", _not_on),
)
