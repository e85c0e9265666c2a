"""Models of the fleet: which node has what, fetched, copied and removed."""

from typing import Annotated, Any

import typer

from muster.cli.client import Client
from muster.cli.command import CommandId, NoWait, Timeout, send
from muster.cli.options import AsJson, Limit, Page, ServerUrl
from muster.cli.tables import Column, Row, ago, print_json, show_rows, size
from muster.errors import InvalidInput

model = typer.Typer(no_args_is_help=True, help="Models on nodes: listed, fetched, copied, removed; in memory or not.")

_NAME = "https://HOST/FILE, hf:ORG/REPO or hf:ORG/REPO/FILE (@REVISION behind it), ollama:NAME, or a built-in name."

Name = Annotated[str, typer.Argument(metavar="MODEL", help=_NAME)]
Held = Annotated[str, typer.Argument(metavar="MODEL", help="Its name, as the service that has it says it.")]
Nodes = Annotated[str | None, typer.Option("--node", metavar="ID", help="On this node; several with commas.")]
Pool = Annotated[str | None, typer.Option("--pool", help="On all nodes of this pool.")]
Labels = Annotated[str | None, typer.Option("--selector", "-l", metavar="LABELS", help="On nodes with these labels.")]
All = Annotated[bool, typer.Option("--all", help="On all nodes that are connected.")]
Service = Annotated[str | None, typer.Option("--service", help="The service that is to do it, such as an Ollama one.")]


@model.command("ls")
def list_copies(
    node: Annotated[str | None, typer.Option("--node", metavar="ID", help="Only what this node has.")] = None,
    search: Annotated[str | None, typer.Option("--search", metavar="TEXT", help="Part of a name.")] = None,
    page: Page = 1,
    limit: Limit = 100,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """List which node has what: on disk, loaded, or on its way."""
    query = {"node": node, "q": search, "page": page, "limit": limit}
    rows, headers = Client.find(server).request("GET", "/api/v1/models", query=query)
    if as_json:
        print_json(rows)
        return
    total = int(headers.get("x-total-count", len(rows)))
    more = f"{len(rows)} of {total} models; more: muster model ls --page {page + 1}" if page * limit < total else ""
    copies = [
        {"name": row["name"], "kind": row["kind"], "replicated": row["replicated"], **copy}
        for row in rows
        for copy in row["copies"]
        if node in {None, copy["node_id"]}
    ]
    show_rows(copies, _COLUMNS, empty="No models. Fetch one: muster model pull hf:ORG/REPO/FILE --all", note=more)


@model.command()
def pull(
    name: Name,
    node: Nodes = None,
    pool: Pool = None,
    selector: Labels = None,
    everywhere: All = False,
    service: Service = None,
    timeout: Timeout = None,
    command_id: CommandId = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Have nodes fetch a model: from another node that has it, else from its source."""
    body = _order(name, node, pool, selector, everywhere) | {"service": service}
    send(_timed(body, timeout, command_id), path=f"{_PATH}/pull", wait=not no_wait, as_json=as_json, server=server)


@model.command()
def copy(
    name: Name,
    node: Nodes = None,
    pool: Pool = None,
    selector: Labels = None,
    everywhere: All = False,
    timeout: Timeout = None,
    command_id: CommandId = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Have nodes fetch a model from those that have it, and from nowhere else."""
    body = _order(name, node, pool, selector, everywhere)
    send(_timed(body, timeout, command_id), path=f"{_PATH}/copy", wait=not no_wait, as_json=as_json, server=server)


@model.command("rm")
def remove(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Its name, or the digest of a copy.")],
    node: Nodes = None,
    pool: Pool = None,
    selector: Labels = None,
    everywhere: All = False,
    service: Service = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Have nodes delete a model; what a service uses stays."""
    body = _order(name, node, pool, selector, everywhere) | {"service": service}
    send(body, path=f"{_PATH}/remove", wait=not no_wait, as_json=as_json, server=server)


@model.command()
def load(
    name: Held,
    node: Nodes = None,
    pool: Pool = None,
    selector: Labels = None,
    everywhere: All = False,
    service: Service = None,
    timeout: Timeout = None,
    command_id: CommandId = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Have nodes take a model into memory; without a word of where, the one where that costs least."""
    anywhere = not (node or pool or selector or everywhere)
    body = {"model": name} if anywhere else _order(name, node, pool, selector, everywhere)
    body = _timed(body | {"service": service}, timeout, command_id)
    send(body, path=f"{_PATH}/load", wait=not no_wait, as_json=as_json, server=server)


@model.command()
def unload(
    name: Held,
    node: Nodes = None,
    pool: Pool = None,
    selector: Labels = None,
    everywhere: All = False,
    service: Service = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Have nodes take a model out of memory, once it has answered."""
    body = _order(name, node, pool, selector, everywhere) | {"service": service}
    send(body, path=f"{_PATH}/unload", wait=not no_wait, as_json=as_json, server=server)


@model.command()
def pin(
    name: Held,
    node: Nodes = None,
    pool: Pool = None,
    selector: Labels = None,
    everywhere: All = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Have nodes keep a model in memory from their start on: no other makes it go."""
    body = _order(name, node, pool, selector, everywhere)
    send(body, path=f"{_PATH}/pin", wait=not no_wait, as_json=as_json, server=server)


@model.command()
def unpin(
    name: Held,
    node: Nodes = None,
    pool: Pool = None,
    selector: Labels = None,
    everywhere: All = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Have nodes keep a model in memory no longer than others."""
    body = _order(name, node, pool, selector, everywhere)
    send(body, path=f"{_PATH}/unpin", wait=not no_wait, as_json=as_json, server=server)


_PATH = "/api/v1/models"


def _order(name: str, node: str | None, pool: str | None, selector: str | None, everywhere: bool) -> dict[str, Any]:
    if [node, pool, selector, everywhere or None].count(None) != 3:  # noqa: PLR2004 - one of four is given
        raise InvalidInput("say where: one of --node ID, --pool NAME, --selector LABELS and --all")
    nodes = None if node is None else [each.strip() for each in node.split(",") if each.strip()]
    return {"model": name, "nodes": nodes, "pool": pool, "selector": selector, "all": everywhere or None}


def _timed(body: dict[str, Any], timeout: float | None, command_id: str | None) -> dict[str, Any]:
    return body | {"timeout": timeout, "command_id": command_id}


def _state(row: Row) -> str:
    if row["state"] == "fetching" and row["fraction"] is not None:
        return f"fetching {row['fraction']:.0%}"
    return str(row["state"]).replace("_", " ")


def _remarks(row: Row) -> str | None:
    said = [
        f"used by {', '.join(row['services'])}" if row["services"] else "",
        "pinned" if row["pinned"] else "",
        row["error"] or "",
        "a bundle" if row["kind"] == "bundle" else "",
    ]
    return "; ".join(filter(None, said)) or None


_COLUMNS = (
    Column("model", lambda row: row["name"]),
    Column("node", lambda row: row["node_id"]),
    Column("state", _state),
    Column("size", lambda row: size(row["size_bytes"]), right=True),
    Column("digest", lambda row: (row["digest"] or "").removeprefix("sha256:")[:12]),
    Column("replicated", lambda row: row["replicated"]),
    Column("last used", lambda row: ago(row["last_used_at"])),
    Column("", _remarks),
)
