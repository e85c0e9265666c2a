import json
from collections import deque
from datetime import UTC, datetime
from typing import Annotated

import typer

from muster.cli.client import Client
from muster.cli.follow import follow
from muster.cli.options import AsJson, Limit, ServerUrl
from muster.cli.tables import Row, console, print_json

_PAGE = 1000


def events(
    follow_on: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new events as they happen.")] = False,
    after: Annotated[str | None, typer.Option(metavar="ID", help="From this one on instead of the newest.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Print what happened, the newest last; with --json --follow one JSON object a line."""
    client = Client.find(server)
    past = _newest(client, limit) if after is None else client.get("/api/events", after=after, limit=limit)["events"]
    if as_json and not follow_on:
        print_json({"events": past})
        return
    for event in past:
        _print_event(event, as_json=as_json)
    if not past and not follow_on:
        console().print("No events yet.")
    if follow_on:
        for message in follow(client, "/api/events/stream", after=past[-1]["id"] if past else after):
            _print_event(json.loads(message.data), as_json=as_json)


def _newest(client: Client, count: int) -> list[Row]:
    """Walk to the end of the log: it is read forwards only, and capped."""
    kept: deque[Row] = deque(maxlen=count)
    after = "0"
    while page := client.get("/api/events", after=after, limit=_PAGE)["events"]:
        kept.extend(page)
        after = page[-1]["id"]
        if len(page) < _PAGE:
            break
    return list(kept)


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
