from datetime import timedelta
from typing import Annotated

import typer

from muster.cli.client import Client
from muster.cli.options import AsJson, Limit, Page, ServerUrl
from muster.cli.tables import Column, Row, ago, print_json, show_facts, show_rows, size

_MB = 1_000_000


def nodes(
    health: Annotated[str | None, typer.Option(help="Only nodes of this health: healthy, stale, dead, ...")] = None,
    pool: Annotated[str | None, typer.Option(help="Only nodes of this pool.")] = None,
    page: Page = 1,
    limit: Limit = 100,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """List the machines of the fleet."""
    query = {"health": health, "pool": pool, "page": page, "limit": limit}
    rows, headers = Client.find(server).request("GET", "/api/v1/nodes", query=query)
    if as_json:
        print_json(rows)
        return
    total = int(headers.get("x-total-count", len(rows)))
    more = f"{len(rows)} of {total}; more: muster nodes --page {page + 1}" if page * limit < total else ""
    show_rows(rows, _COLUMNS, empty="No nodes. A machine joins with: muster agent --control-plane URL", note=more)


def node(
    node_id: Annotated[str, typer.Argument(metavar="NODE", help="Its id (muster nodes).")],
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Show one machine: what it has, what it runs, why it is not healthy."""
    found = Client.find(server).get(f"/api/v1/nodes/{node_id}")
    if as_json:
        print_json(found)
        return
    resources = found.get("resources") or {}
    show_facts(
        [
            ("node", found["node_id"]),
            ("health", found["health_status"]),
            ("why", found.get("reason")),
            ("phase", found["phase"]),
            ("draining", found["draining"]),
            ("left unanswered", found.get("command_problem")),
            ("last heard", ago(found.get("last_seen_ms"))),
            ("version", found.get("version")),
            ("link", found.get("link")),
            ("address", found.get("address")),
            ("processors", found.get("cpu_cores")),
            ("memory", _used_of(resources.get("memory_used_mb"), resources.get("memory_total_mb"))),
            ("disk free", _megabytes(resources.get("disk_free_mb"))),
            ("labels", [f"{key}={value}" for key, value in (found.get("labels") or {}).items()] or None),
        ]
    )
    show_rows(found.get("gpus") or [], _GPU_COLUMNS, empty="")
    show_rows(found.get("services") or [], _SERVICE_COLUMNS, empty="No services.")


def _megabytes(count: float | None) -> str | None:
    return None if count is None else size(count * _MB)


def _used_of(used_mb: float | None, total_mb: float | None) -> str | None:
    if total_mb is None:
        return None
    return f"{_megabytes(used_mb) or 'unknown'} used of {_megabytes(total_mb)}"


def _owner(owner: Row) -> str:
    return f"{owner['name']} ({_megabytes(owner.get('memory_mb')) or 'unknown'})"


def _figures(service: Row) -> Row:
    return service.get("figures") or {}


def _up(seconds: int | None) -> str | None:
    return None if seconds is None else str(timedelta(seconds=seconds))


def _gpus(row: Row) -> str:
    gpus = row.get("gpus") or []
    names = sorted({gpu["name"] + (" (simulated)" if gpu.get("simulated") else "") for gpu in gpus})
    return f"{len(gpus)} x {', '.join(names)}" if gpus else str(row.get("gpu_count") or "-")


_COLUMNS = (
    Column("node", lambda row: row["node_id"]),
    Column("health", lambda row: row["health_status"]),
    Column("phase", lambda row: "draining" if row.get("draining") else row["phase"]),
    Column("last heard", lambda row: ago(row.get("last_seen_ms"))),
    Column("gpus", _gpus),
    Column("models", lambda row: row.get("loaded_models")),
    Column("why", lambda row: row.get("reason")),
)
_GPU_COLUMNS = (
    Column("gpu", lambda row: row.get("index")),
    Column("name", lambda row: row.get("name")),
    Column("memory", lambda row: _used_of(row.get("memory_used_mb"), row.get("memory_total_mb"))),
    Column("load %", lambda row: row.get("utilization_percent"), right=True),
    Column("°C", lambda row: row.get("temperature_c"), right=True),
    Column("simulated", lambda row: row.get("simulated", False)),
    Column("used by", lambda row: [_owner(owner) for owner in row.get("owners") or []] or None),
    Column("out of service", lambda row: row.get("out_of_service")),
)
_SERVICE_COLUMNS = (
    Column("service", lambda row: row["name"]),
    Column("connector", lambda row: row.get("connector")),
    Column("status", lambda row: row.get("status")),
    Column("url", lambda row: row.get("url")),
    Column("models", lambda row: [m["name"] if isinstance(m, dict) else m for m in row.get("models") or []]),
    Column("slots", lambda row: row.get("slots"), right=True),
    Column("cpu %", lambda row: _figures(row).get("cpu_percent"), right=True),
    Column("memory", lambda row: _megabytes(_figures(row).get("rss_mb")), right=True),
    Column("up", lambda row: _up(_figures(row).get("uptime_s")), right=True),
    Column("error", lambda row: row.get("error")),
)
