import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from muster.cli.client import Client
from muster.cli.options import AsJson, ServerUrl
from muster.cli.tables import Column, Row, ago, console, print_json, show_rows
from muster.domain.schedule import Missed

schedules = typer.Typer(
    invoke_without_command=True, help="Look at jobs that come again and again, make and pause them."
)

ScheduleArgument = Annotated[str, typer.Argument(metavar="ID", help="The schedule's id.")]


@schedules.callback()
def list_schedules(context: typer.Context, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """List recurring jobs and when each comes next."""
    if context.invoked_subcommand is not None:
        return
    found = Client.find(server).get("/api/schedules")["schedules"]
    empty = "No schedules. Try: muster schedules set nightly simulation --cron '30 2 * * *'"
    print_json(found) if as_json else show_rows(found, _COLUMNS, empty=empty)


@schedules.command("set")
def set_schedule(
    schedule_id: ScheduleArgument,
    service: Annotated[str, typer.Argument(help="What must run it: simulation, llamacpp, openai, ...")],
    cron: Annotated[
        str | None, typer.Option(metavar="FIELDS", help="Minute, hour, day, month, weekday: '30 2 * * *'.")
    ] = None,
    time_zone: Annotated[str, typer.Option(metavar="ZONE", help="Of the cron fields: Europe/Berlin.")] = "UTC",
    every_s: Annotated[float | None, typer.Option(min=1, help="Instead of cron: again after so many seconds.")] = None,
    payload: Annotated[str, typer.Option(metavar="JSON", help="The work.")] = "{}",
    priority: Annotated[int, typer.Option(min=0, max=100, help="Higher goes first.")] = 50,
    customer: Annotated[str | None, typer.Option(help="On whose behalf.")] = None,
    missed: Annotated[Missed, typer.Option(help="What becomes of times when no control plane ran.")] = Missed.LAST,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Make or change a recurring job."""
    wanted = {
        "job": {
            "service_required": service,
            "payload": _parsed(payload),
            "priority": priority,
            "customer_id": customer,
        },
        "cron": cron,
        "time_zone": time_zone,
        "every_s": every_s,
        "missed": missed.value,
    }
    _show(Client.find(server).request("PUT", f"/api/schedules/{schedule_id}", body=wanted)[0], as_json=as_json)


@schedules.command()
def pause(schedule_id: ScheduleArgument, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """Submit no more jobs of it."""
    _show(Client.find(server).post(f"/api/schedules/{schedule_id}/pause"), as_json=as_json)


@schedules.command()
def resume(schedule_id: ScheduleArgument, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """Let it go on from now."""
    _show(Client.find(server).post(f"/api/schedules/{schedule_id}/resume"), as_json=as_json)


@schedules.command()
def forget(schedule_id: ScheduleArgument, server: ServerUrl = None) -> None:
    """Forget it; the jobs that it made stay."""
    Client.find(server).request("DELETE", f"/api/schedules/{schedule_id}")
    console().print(f"{schedule_id} is forgotten", markup=False)


def _show(answer: Any, *, as_json: bool) -> None:
    found = answer["schedule"]
    print_json(found) if as_json else show_rows([found], _COLUMNS, empty="")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint="--payload") from None


def _rule(row: Row) -> str:
    return f"every {row['every_s']:g} s" if row["cron"] is None else f"{row['cron']} ({row['time_zone']})"


def _next(row: Row) -> str:
    if not row["next_runs"]:
        return "paused"
    return f"{datetime.fromtimestamp(row['next_runs'][0] / 1000, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


_COLUMNS = (
    Column("schedule", lambda row: row["schedule_id"]),
    Column("service", lambda row: row["service_required"]),
    Column("when", _rule),
    Column("next", _next),
    Column("last", lambda row: ago(row.get("last_at"))),
    Column("last job", lambda row: row.get("last_job_id")),
)
