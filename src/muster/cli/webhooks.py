import sys
from typing import Annotated
from urllib.parse import quote

import typer

from muster.cli.client import Client
from muster.cli.options import AsJson, ServerUrl
from muster.cli.tables import Column, Row, ago, print_json, show_rows

webhooks = typer.Typer(no_args_is_help=True, help="Have addresses told when jobs and batches end.")

_ONCE = "Its secret is shown this once: receivers check the signature of what they get with it."

HookId = Annotated[str, typer.Argument(metavar="ID", help="Its id (muster webhooks list).")]


@webhooks.command()
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to post to.")],
    event: Annotated[
        list[str] | None, typer.Option(help="What to be told of, e.g. job_failed; repeat it. Otherwise of all.")
    ] = None,
    service: Annotated[str | None, typer.Option(help="Only jobs for this service.")] = None,
    customer: Annotated[str | None, typer.Option(help="Only jobs of this customer.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only jobs of this workflow, or this batch.")] = None,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Make a webhook and print its secret, this once."""
    wanted = {"url": url, "events": event, "service": service, "customer_id": customer, "workflow_id": workflow}
    made = Client.find(server).post("/api/webhooks", {key: value for key, value in wanted.items() if value})
    if as_json:
        print_json(made)
        return
    print(made["secret"])
    print(f"Webhook {made['webhook']['id']} is made. {_ONCE}", file=sys.stderr)


@webhooks.command("list")
def list_webhooks(as_json: AsJson = False, server: ServerUrl = None) -> None:
    """List webhooks and how it goes with them."""
    rows = Client.find(server).get("/api/webhooks")
    if as_json:
        print_json(rows)
        return
    show_rows(rows, _WEBHOOKS, empty="No webhooks. Make one: muster webhooks create URL")


@webhooks.command()
def deliveries(webhook_id: HookId, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """List what a webhook is to be told, and the newest that it was told."""
    rows = Client.find(server).get(f"{_path(webhook_id)}/deliveries")
    if as_json:
        print_json(rows)
        return
    show_rows(rows, _DELIVERIES, empty="Nothing yet.")


@webhooks.command("test")
def try_out(webhook_id: HookId, server: ServerUrl = None) -> None:
    """Send a test now, and say what came of it."""
    told = Client.find(server).post(f"{_path(webhook_id)}/test")
    print(_came_of(told))
    if told["status"] != "delivered":
        raise typer.Exit(1)


@webhooks.command()
def redeliver(
    webhook_id: HookId,
    delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY", help="Its id (muster webhooks deliveries).")],
    server: ServerUrl = None,
) -> None:
    """Send a delivery that ended once more, under its own id."""
    Client.find(server).post(f"{_path(webhook_id)}/deliveries/{quote(delivery_id, safe='')}/redeliver")
    print(f"{delivery_id} is on its way again.")


@webhooks.command()
def resume(webhook_id: HookId, server: ServerUrl = None) -> None:
    """Go on with a webhook that was paused."""
    Client.find(server).post(f"{_path(webhook_id)}/resume")
    print(f"{webhook_id} goes on.")


@webhooks.command()
def remove(webhook_id: HookId, server: ServerUrl = None) -> None:
    """Remove a webhook with all that waits for it."""
    Client.find(server).request("DELETE", _path(webhook_id))
    print(f"{webhook_id} is removed.")


def _path(webhook_id: str) -> str:
    return f"/api/webhooks/{quote(webhook_id, safe='')}"


def _came_of(told: Row) -> str:
    answered = f"it answered {told['response_status']}" if told["response_status"] else "no answer"
    return f"{told['status']} after {told['took_ms']} ms: {told['error'] or answered}"


def _filters(row: Row) -> str:
    named = (("service", "service"), ("customer", "customer_id"), ("workflow", "workflow_id"))
    return ", ".join(f"{name} {row[key]}" for name, key in named if row[key]) or "all"


_WEBHOOKS = (
    Column("id", lambda row: row["id"]),
    Column("url", lambda row: row["url"]),
    Column("events", lambda row: ", ".join(row["events"])),
    Column("of", _filters),
    Column("waiting", lambda row: row["waiting"]),
    Column("paused", lambda row: row["paused"]),
)
_DELIVERIES = (
    Column("id", lambda row: row["id"]),
    Column("type", lambda row: row["type"]),
    Column("about", lambda row: row["subject"]),
    Column("status", lambda row: row["status"]),
    Column("attempts", lambda row: row["attempts"]),
    Column("happened", lambda row: ago(row["occurred_at"])),
    Column("answer", lambda row: row["error"] or row["response_status"]),
)
