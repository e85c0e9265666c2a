"""What services and Muster itself say: read, followed, searched, cleared; and the story of one job or request."""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from heapq import merge
from typing import Annotated, Any
from urllib.parse import quote
from zlib import crc32

import typer

from muster.cli.client import Client, Unreachable
from muster.cli.follow import GIVE_UP_AFTER_S, SILENCE_S
from muster.cli.options import AsJson, ServerUrl
from muster.cli.tables import Column, Row, console, print_json, show_rows
from muster.clock import Clock
from muster.errors import InvalidInput, NotFound
from muster.logs.when import parse_time
from muster.settings import Settings, load_settings
from muster.sse import read_events
from muster.wire.logs import LogLine, LogWish

CONTROL_PLANE = "control-plane"
_CLEAR = "clear"
_TAIL = 100
_PAUSE_S = 1.0
_KILO = 1000
_PREFIX_MIN = 20
_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94, 91, 31)  # of the prefixes; the same source always has the same
_LEVEL_COLOURS = {"error": 31, "warning": 33, "debug": 2}
_APART = frozenset({"event", "timestamp", "level"})

_COLUMNS = (
    Column("log", lambda row: f"{row['node_id']}/{row['name']}"),
    Column("size", lambda row: _size(row["bytes"]), right=True),
    Column("parts", lambda row: row["parts"], right=True),
    Column("changed", lambda row: row["changed_at"]),
)


def logs(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE[/LOG]]...",
            help="Which logs: all of a node, or one, `*` in its name standing for anything; `control-plane` for what "
            "the control plane says; none: all there are. `clear` before NODE/LOG empties it.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=0, max=10_000, help="The last so many lines of each log.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="90s, 5m, 2h, 1d ago, or a time.")
    ] = None,
    grep: Annotated[
        str | None, typer.Option("--grep", metavar="TEXT", help="With this text; all in lower case: in any case.")
    ] = None,
    level: Annotated[
        str | None, typer.Option("--level", metavar="LEVEL", help="At least debug, info, warning or error.")
    ] = None,
    job_id: Annotated[str | None, typer.Option("--job", metavar="ID", help="What happened with this job.")] = None,
    correlation_id: Annotated[
        str | None, typer.Option("--correlation", metavar="ID", help="What this request led to (X-Correlation-Id).")
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", "-l", help="Which logs there are, and their sizes.")] = False,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Show what services and Muster itself say; without --tail and --since the last 100 lines of each log."""
    named = sources or []
    if job_id is not None or correlation_id is not None:
        if follow or named or (job_id is not None and correlation_id is not None):
            raise InvalidInput("--job and --correlation stand alone: they look through all logs, up to now")
        show_timeline(Client.find(server), job_id=job_id, correlation_id=correlation_id, as_json=as_json)
    elif named[:1] == [_CLEAR]:
        _clear(Client.find(server), named[1:], as_json=as_json)
    elif list_them:
        _list(Client.find(server), named, as_json=as_json)
    else:
        newest = _TAIL if tail is None and since is None else tail
        query = {"source": named, "since": since, "grep": grep, "level": level, "tail": newest}
        rows = _read(Client.find(server), query, follow=follow)
        if not _show(rows, several=_are_several(named), as_json=as_json):
            raise typer.Exit(1)


def show_timeline(
    client: Client, *, job_id: str | None = None, correlation_id: str | None = None, as_json: bool = False
) -> None:
    if job_id is not None:
        found = client.get(f"/api/jobs/{quote(job_id, safe='')}/timeline")
    else:
        found = client.get("/api/v1/timeline", correlation_id=correlation_id)
    if as_json:
        print_json(found)
        return
    paint = _Paint()
    for entry in found["entries"]:
        fields = " ".join(f"{key}={_short(value)}" for key, value in (entry["data"] or {}).items())
        text = f"{entry['text']}  {fields}".rstrip()
        at = None if entry["at_ms"] is None else datetime.fromtimestamp(entry["at_ms"] / 1000, UTC)
        print(f"{_clock(at, seen=entry['seen'])} {paint.prefix(entry['source'])} {paint.text(text, entry['level'])}")
    for note in found["notes"]:
        print(f"-- {note}", file=sys.stderr)
    if not found["entries"]:
        print("Nothing is known of it: its events and lines may be gone already.")


# --- reading ---------------------------------------------------------------------------------------------------------


def _read(client: Client, query: dict[str, Any], *, follow: bool) -> Iterator[Row]:
    """Yield lines and notes; without a control plane those that are on this machine."""
    try:
        if follow:
            yield from _follow(client, query)
            return
        headers = {"Accept": "application/x-ndjson"}
        with client.open("GET", "/api/v1/logs", query=query, headers=headers) as answer:
            for line in answer.lines():
                yield json.loads(line)
    except Unreachable as error:
        settings = load_settings({})
        if follow or not (settings.data_path / "logs").is_dir():
            raise
        print(f"muster: {error.message}; these are the logs on this machine", file=sys.stderr)
        from muster.system import SystemClock

        yield from _on_this_machine(settings, query, SystemClock())


def _follow(client: Client, query: dict[str, Any]) -> Iterator[Row]:
    """Yield what comes; a lost connection is taken up where it broke off."""
    lost_s: float | None = None
    last = None
    while True:
        try:
            asked = query | {"follow": "true"}
            with client.open("GET", "/api/v1/logs", query=asked, silence_s=SILENCE_S) as answer:
                lost_s = None
                for event in read_events(answer.lines()):
                    row = json.loads(event.data)
                    last = row.get("at") or last
                    yield row
        except Unreachable as error:
            if last is None or (lost_s is not None and time.monotonic() - lost_s > GIVE_UP_AFTER_S):
                raise
            print(f"-- {error.message}; trying again", file=sys.stderr)
            query = query | {"since": last, "tail": None}
        else:
            return  # all have said that there is no more
        lost_s = time.monotonic() if lost_s is None else lost_s
        time.sleep(_PAUSE_S)


def _on_this_machine(settings: Settings, query: dict[str, Any], clock: Clock) -> Iterator[Row]:
    from muster.logs.reading import LogReader
    from muster.logs.shelf import LogShelf

    folder = settings.data_path / "logs"
    tail, level, grep = query["tail"], query["level"], query["grep"]
    since_ms = parse_time(query["since"], clock.now_ms(), "since")
    found: list[list[Row]] = []
    for node_id, shelf in (
        ("local", LogShelf(folder, clock)),
        (CONTROL_PLANE, LogShelf(folder / CONTROL_PLANE, clock)),
    ):
        patterns = [text.partition("/")[2] or "*" for text in query["source"] if text.partition("/")[0] == node_id]
        if query["source"] and not patterns:
            continue
        wish = LogWish(tail=tail, since_ms=since_ms, grep=grep, level=level)
        for name, file in shelf.matching(patterns or ["*"]).items() if shelf.infos() else ():
            lines = [line for block in LogReader(name, file, wish).past() for line in block]
            found.append([_row(node_id, line) for line in lines])
    if query["source"] and not found:
        raise NotFound("no such log is on this machine; it has `local` and `control-plane`", field="source")
    yield from merge(*found, key=lambda row: row["at"] or "")


def _row(node_id: str, line: LogLine) -> Row:
    at = None if line.at_ms is None else datetime.fromtimestamp(line.at_ms / 1000, UTC).isoformat()
    return {"node_id": node_id, "log": line.log, "at": at, "seen": line.seen, "level": line.level, "text": line.text}


# --- showing ---------------------------------------------------------------------------------------------------------


def _show(rows: Iterable[Row], *, several: bool, as_json: bool) -> bool:
    """Print them; return False where there was nothing but what kept us from reading."""
    paint = _Paint()
    lines = notes = 0
    try:
        for row in rows:
            lines, notes = lines + ("note" not in row), notes + ("note" in row)
            if as_json:
                print(json.dumps(row, ensure_ascii=False), flush=True)
            elif "note" in row:
                print(f"-- {row['node_id']}: {row['note']}", file=sys.stderr, flush=True)
            else:
                source = f"{row['node_id']}/{row['log']}"
                prefix = f"{paint.prefix(source)} " if several else ""
                at = None if row["at"] is None else datetime.fromisoformat(row["at"])
                text = paint.text(_in_words(row["text"]), row["level"])
                print(f"{prefix}{_clock(at, seen=row['seen'])} {text}", flush=True)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return bool(lines) or not notes


def _are_several(sources: list[str]) -> bool:
    return len(sources) != 1 or "/" not in sources[0] or "*" in sources[0]


def _clock(at: datetime | None, *, seen: bool) -> str:
    """Return a time of day; `~`: the line told none, it was seen then."""
    if at is None:
        return "        -    "
    return f"{'~' if seen else ' '}{at.astimezone():%H:%M:%S.%f}"[:13]


def _in_words(text: str) -> str:
    """Return a line of JSON, as Muster writes them, as its event and what belongs to it."""
    if not text.startswith("{"):
        return text
    try:
        fields = json.loads(text)
    except ValueError:
        return text
    if not isinstance(fields, dict) or "event" not in fields:
        return text
    return "  ".join([str(fields["event"]), *(f"{k}={_short(v)}" for k, v in fields.items() if k not in _APART)])


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class _Paint:
    """Colours, where they can be seen."""

    def __init__(self) -> None:
        forced = bool(os.environ.get("FORCE_COLOR"))
        self._on = forced or (sys.stdout.isatty() and not os.environ.get("NO_COLOR"))
        self._width = _PREFIX_MIN

    def prefix(self, source: str) -> str:
        self._width = max(self._width, len(source))
        padded = f"{source:<{self._width}} |"
        return self._coloured(padded, _COLOURS[crc32(source.encode()) % len(_COLOURS)])

    def text(self, text: str, level: str | None) -> str:
        colour = _LEVEL_COLOURS.get(level or "")
        return text if colour is None else self._coloured(text, colour)

    def _coloured(self, text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._on else text


# --- which there are, and clearing -----------------------------------------------------------------------------------


def _list(client: Client, nodes: list[str], *, as_json: bool) -> None:
    if not nodes:
        connected = [node["node_id"] for node in client.get("/api/v1/nodes", limit=1000) if node["connected"]]
        nodes = [CONTROL_PLANE, *connected]
    found = [
        {"node_id": node_id} | row
        for node_id in nodes
        for row in client.get(f"/api/v1/nodes/{_quoted(node_id)}/logs")["logs"]
    ]
    print_json(found) if as_json else show_rows(found, _COLUMNS, empty="No logs.")


def _clear(client: Client, sources: list[str], *, as_json: bool) -> None:
    parted = [source.partition("/") for source in sources]
    if not parted or not all(node_id and name for node_id, _, name in parted):
        raise InvalidInput("say which log: muster logs clear NODE/LOG; '*' in LOG stands for anything")
    cleared = [
        {"node_id": node_id} | row
        for node_id, _, name in parted
        for row in client.request("DELETE", f"/api/v1/nodes/{_quoted(node_id)}/logs/{_quoted(name)}")[0]["logs"]
    ]
    if as_json:
        print_json(cleared)
        return
    for row in cleared:
        console().print(f"{row['node_id']}/{row['name']} is empty", markup=False)


def _quoted(name: str) -> str:
    return quote(name, safe="*")


def _size(count: int) -> str:
    return f"{count} B" if count < _KILO else f"{count / _KILO:,.0f} kB"
