import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from muster.cli.client import Client
from muster.cli.follow import follow
from muster.cli.options import AsJson, Limit, ServerUrl
from muster.cli.tables import Row, console, print_json


def events(
    follow_on: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new events as they happen.")] = False,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Only events after this one.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Print what happened; with --json --follow one JSON object a line."""
    client = Client.find(server)
    past = client.get("/api/events", after=after, limit=limit)
    if as_json and not follow_on:
        print_json(past)
        return
    for event in past["events"]:
        _print_event(event, as_json=as_json)
    if follow_on:
        last = past["events"][-1]["id"] if past["events"] else past["newest_id"]
        for message in follow(client, "/api/events/stream", after=last):
            _print_event(json.loads(message.data), as_json=as_json)


def _print_event(event: Row, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(event, ensure_ascii=False), flush=True)
        return
    at = datetime.fromtimestamp(event["at_ms"] / 1000, UTC).astimezone()
    about = " ".join(event.get("ids") or [event["key"]])
    details = " ".join(f"{name}={_short(value)}" for name, value in (event.get("data") or {}).items())
    console().print(f"{at:%H:%M:%S}  {event['kind']:<24} {about}  {details}".rstrip(), markup=False)


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
