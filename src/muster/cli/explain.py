from typing import Annotated, Any
from urllib.parse import quote

import typer

from muster.cli.client import Client
from muster.cli.jobs import JobIdArgument, show_explanation
from muster.cli.options import AsJson, ServerUrl
from muster.cli.tables import Column, Row, console, print_json, show_rows
from muster.errors import InvalidInput

explain = typer.Typer(no_args_is_help=True, help="Say where work goes, or why it waits.")


@explain.command()
def model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model (muster models).")],
    pool: Annotated[str | None, typer.Option(help="Only in this pool, service or NODE/SERVICE.")] = None,
    node_id: Annotated[str | None, typer.Option("--node", help="Only on this node.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only with this label.")] = None,
    min_memory_mb: Annotated[int | None, typer.Option(min=0, help="Free GPU memory that it needs, in MB.")] = None,
    capability: Annotated[str, typer.Option(help="completion, embedding, vision or tools.")] = "completion",
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Say which worker a request for a model would get now, and what speaks against the others."""
    wish = {
        "model": name,
        "capability": capability,
        "pool": pool,
        "node_id": node_id,
        "labels": dict(_pair(text) for text in label or ()),
        "min_memory_mb": min_memory_mb,
    }
    answer = Client.find(server).post("/api/v1/explain", {key: value for key, value in wish.items() if value})
    print_json(answer) if as_json else _show(answer)


@explain.command()
def job(job_id: JobIdArgument, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """Say why a job waits: who could run it, and what others lack."""
    explanation = Client.find(server).get(f"/api/jobs/{job_id}/explain")["explanation"]
    print_json(explanation) if as_json else show_explanation(explanation)


@explain.command()
def request(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="X-Correlation-Id of the answer.")],
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Say where a request to a model went, and why: what it waited for, who was asked, who was passed over."""
    answer = Client.find(server).get(f"/api/v1/requests/{quote(request_id, safe='')}")
    print_json(answer) if as_json else _show_request(answer)


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InvalidInput(f"--label takes KEY=VALUE, got {text!r}", field="label")
    return key, value


def _show(answer: dict[str, Any]) -> None:
    console().print(answer["summary"], markup=False)
    show_rows(answer["candidates"], _COLUMNS, empty="")


def _show_request(answer: dict[str, Any]) -> None:
    said = console()
    ended = "is being answered" if answer["status"] is None else f"ended with {answer['status']}"
    took = "" if answer["duration_s"] is None else f" after {answer['duration_s']:g} s"
    error = f" ({answer['error']})" if answer["error"] else ""
    said.print(f"{answer['path']} for {answer['model']} {ended}{took}{error}", markup=False)
    keeping = answer["keeping"]
    if keeping is not None:
        said.print(_kept(keeping), markup=False)
    for wait in answer["waits"]:
        ended_s = wait["ended_s"]
        waited = "it still waits" if ended_s is None else f"it waited {ended_s - wait['begun_s']:.3g} s"
        said.print(f"{waited} for {wait['what']}{_rank(wait)}", markup=False)
    for attempt in answer["attempts"]:
        failure = f"; it failed: {attempt['failure']}" if attempt["failure"] else ""
        said.print(f"{attempt['worker']} was asked: {attempt['why']}{failure}", markup=False)
        show_rows(attempt["considered"], _CONSIDERED, empty="")
        for passed in attempt["passed_over"]:
            said.print(f"  {passed['worker']} {passed['reason']}", markup=False)


def _kept(keeping: dict[str, Any]) -> str:
    if not keeping["kept"]:
        return "its caller wanted to be able to come back for it, but it is not kept"
    since = ", since its gateway was gone by this one" if keeping["taken_over"] else ""
    return f"kept as {keeping['stream_id']} for {keeping['keep_s']:g} s without a reader{since}"


def _rank(wait: dict[str, Any]) -> str:
    if wait["priority"] is None:
        return ""
    return f", with priority {wait['priority']} and weight {wait['weight']:g}"


_CONSIDERED = (
    Column("could serve", lambda row: row["worker"]),
    Column("cost", lambda row: f"{row['cost']:g}", right=True),
    Column("in flight", lambda row: row["in_flight"], right=True),
    Column("of others", lambda row: row["outside"], right=True),
    Column("slots", lambda row: row["slots"], right=True),
    Column("slowness", lambda row: f"{row['slowness']:g}", right=True),
    Column("in memory", lambda row: row["resident"]),
)


def _slots(row: Row) -> str | None:
    return None if row["slots"] is None else f"{row['slots'] - (row['slots_busy'] or 0)} of {row['slots']}"


_COLUMNS = (
    Column("worker", lambda row: row["key"]),
    Column("turn", lambda row: row["rank"], right=True),
    Column("free slots", _slots, right=True),
    Column("free GPU memory, MB", lambda row: row["memory_free_mb"], right=True),
    Column("in memory", lambda row: row["resident"]),
    Column("cannot, because", lambda row: "; ".join(reason["reason"] for reason in row["reasons"])),
)
