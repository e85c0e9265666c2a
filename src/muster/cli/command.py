"""Commands to nodes: sent, watched until the last one has ended, listed."""

import shlex
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Annotated, Any, Self

import typer

from muster.cli.client import Client, Unreachable
from muster.cli.options import AsJson, Limit, Page, ServerUrl
from muster.cli.tables import Column, Row, console, print_json, show_rows
from muster.commands.kinds import KINDS, Arg, command_name
from muster.commands.lifecycle import ENDED
from muster.commands.order import ALL
from muster.domain.command import CommandStatus
from muster.errors import InvalidInput

_LOOK_S, _LOOK_S_MAX = 0.1, 1.0
_GIVE_UP_AFTER_S = 60.0
_BARS_MAX = 20
_SHOWN_CHARS = 200

_KNOWN = "\n\n".join(
    " ".join([name, *(arg.name if arg.required else f"{arg.name}?" for arg in kind.args)]) + f": {kind.about}"
    for name, kind in KINDS.items()
)

Timeout = Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", help="Give up after so long.")]
CommandId = Annotated[str | None, typer.Option("--id", help="An id of your own: a second time changes nothing.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Send it, and leave the result for `muster commands`.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; kept with the command.")]
Node = Annotated[str, typer.Argument(metavar="NODE", help="A node's id, several with commas, or '*' for all.")]


def command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[NODE] COMMAND [ARGUMENT]...",
            help="NODE is an id, several with commas, or '*' for all; it is left out with --selector. An ARGUMENT is "
            "KEY=VALUE, or a value in its place.",
        ),
    ],
    selector: Annotated[
        str | None, typer.Option("--selector", "-l", metavar="LABELS", help="Nodes with these labels: zone=a,gpu.")
    ] = None,
    timeout: Timeout = None,
    command_id: CommandId = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Send a command to a node, some nodes or all, and show what comes of it."""
    needed = 1 if selector else 2
    if len(words) < needed:
        raise InvalidInput("say which node and which command: muster command NODE status; '*' stands for all nodes")
    aim = {"selector": selector} if selector else _aim(words[0])
    name, *given = words[needed - 1 :]
    body = aim | {"command": name, "args": _args(name, given), "timeout": timeout, "command_id": command_id}
    send(body, wait=not no_wait, as_json=as_json, server=server)


command.__doc__ = f"{command.__doc__}\n\nExit code 0 means that every node has done it. The commands are:\n\n{_KNOWN}"


def drain(node: Node, reason: Reason = None, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """Keep new work from a node; what runs there goes on."""
    send(_aim(node) | {"command": "drain", "args": _why(reason)}, wait=True, as_json=as_json, server=server)


def resume(node: Node, reason: Reason = None, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """Give work to a node again that was drained."""
    send(_aim(node) | {"command": "resume", "args": _why(reason)}, wait=True, as_json=as_json, server=server)


def commands(
    node: Annotated[str | None, typer.Option("--node", help="Only those to this node.")] = None,
    state: Annotated[CommandStatus | None, typer.Option("--state", help="Only those that stand so.")] = None,
    page: Page = 1,
    limit: Limit = 50,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """List commands, the newest first."""
    query = {"node": node, "state": state and state.value, "page": page, "limit": limit}
    rows, headers = Client.find(server).request("GET", "/api/v1/commands", query=query)
    if as_json:
        print_json(rows)
        return
    total = int(headers.get("x-total-count", len(rows)))
    more = f"{len(rows)} of {total}; more: muster commands --page {page + 1}" if page * limit < total else ""
    show_rows(rows, _COLUMNS, empty="No commands. Try: muster command '*' status", note=more)


# --- sending ----------------------------------------------------------------------------------------------------------


def _aim(nodes: str) -> dict[str, Any]:
    named = [node.strip() for node in nodes.split(",") if node.strip()]
    return {"node_id": nodes} if nodes == ALL or len(named) == 1 else {"nodes": named}


def _why(reason: str | None) -> dict[str, Any]:
    return {"reason": reason} if reason else {}


def _args(name: str, given: list[str]) -> dict[str, Any]:
    """Read `key=value`, and values alone as the command's arguments in their order."""
    known = {arg.name: arg for arg in KINDS[command_name(name)].args}
    read: dict[str, Any] = {}
    for word in given:
        key, separator, value = word.partition("=")
        if not separator or key not in known:
            key, value = next((arg for arg in known if arg not in read), ""), word
        if not key:
            raise InvalidInput(f"{name} takes {', '.join(known) or 'no arguments'}; {word!r} is one too many")
        read[key] = _value(known[key], value)
    return read


def _value(arg: Arg, text: str) -> Any:
    if arg.form == "words":
        return shlex.split(text)
    if arg.form == "lines":
        if not text.isdecimal():
            raise InvalidInput(f"{arg.name} must be a number, got {text!r}", field=arg.name)
        return int(text)
    return text


def send(body: dict[str, Any], *, wait: bool, as_json: bool, server: str | None, path: str = "/api/v1/command") -> None:
    """Issue commands and show what comes of them; exit code 1 unless all are done."""
    client = Client.find(server)
    answer = client.post(path, {key: value for key, value in body.items() if value is not None})
    if wait:
        with _Display(hidden=as_json) as display:
            for answer in _until_ended(client, answer):  # noqa: B020  # the newest answer is what is shown in the end
                display.show(answer["commands"])
    if as_json:
        print_json(answer)
    elif wait:
        _show_results(answer["commands"])
    else:
        console().print(f"{answer['command_id']} sent to {len(answer['commands'])} node(s)", markup=False)
    if wait and answer["state"] != CommandStatus.DONE:
        raise typer.Exit(1)


def _until_ended(
    client: Client,
    answer: dict[str, Any],
    pause: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[dict[str, Any]]:
    """Yield how it stands until nothing is open any more; the control plane may be away for a while meanwhile."""
    look_s, heard_s = _LOOK_S, now()
    yield answer
    while answer["state"] not in ENDED:
        pause(look_s)
        look_s = min(2 * look_s, _LOOK_S_MAX)
        try:
            answer = client.get(f"/api/v1/commands/{answer['command_id']}")
        except Unreachable:
            if now() - heard_s > _GIVE_UP_AFTER_S:
                raise
        else:
            heard_s = now()
            yield answer


# --- showing ----------------------------------------------------------------------------------------------------------


class _Display:
    """On a terminal a bar for each node, elsewhere nothing: the results say it all."""

    def __init__(self, *, hidden: bool) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        out = console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=out,
            transient=True,
            disable=hidden or not out.is_terminal,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, rows: list[Row]) -> None:
        still_open = [row for row in rows if row["state"] not in ENDED]
        for row in (still_open or rows)[:_BARS_MAX]:
            if row["command_id"] not in self._tasks:
                self._tasks[row["command_id"]] = self._bars.add_task(row["node_id"], total=None, state="")
        for row in rows:
            if row["command_id"] in self._tasks:
                self._bars.update(self._tasks[row["command_id"]], state=_state_in_words(row), **_extent(row))


def _extent(row: Row) -> dict[str, Any]:
    if row["state"] in ENDED:
        return {"total": 1.0, "completed": 1.0}
    fraction = (row.get("progress") or {}).get("fraction")
    return {} if fraction is None else {"total": 1.0, "completed": fraction}


def _state_in_words(row: Row) -> str:
    message = (row.get("progress") or {}).get("message")
    return f"{row['state']}: {message}" if message and row["state"] == CommandStatus.ACKED else str(row["state"])


def _show_results(rows: list[Row]) -> None:
    """Show the one result whole, and of several a line each."""
    if len(rows) > 1:
        show_rows(rows, _RESULT_COLUMNS, empty="")
        return
    (row,) = rows
    result = row["result"] if isinstance(row["result"], dict) else {}
    console(stderr=True).print(f"{row['node_id']}: {row['command']} {_outcome(row)}", markup=False)
    if isinstance(result.get("lines"), list):
        print("\n".join(result["lines"]))
    elif isinstance(result.get("output"), str):
        print(result["output"], end="")
    elif row["result"] is not None:
        print_json(row["result"])


def _outcome(row: Row) -> str:
    return f"{row['state']}: {row['error']}" if row.get("error") else str(row["state"])


def _in_brief(row: Row) -> str | None:
    value = row.get("error") or row.get("result")
    return None if value is None else str(value)[:_SHOWN_CHARS]


_RESULT_COLUMNS = (
    Column("node", lambda row: row["node_id"]),
    Column("state", lambda row: row["state"]),
    Column("result", _in_brief),
)
_COLUMNS = (
    Column("command", lambda row: row["command_id"]),
    Column("node", lambda row: row["node_id"]),
    Column("what", lambda row: " ".join([row["command"], *(f"{key}={value}" for key, value in row["args"].items())])),
    Column("state", _state_in_words),
    Column("by", lambda row: row.get("issued_by")),
    Column("issued", lambda row: row["created_at"]),
    Column("result", _in_brief),
)
