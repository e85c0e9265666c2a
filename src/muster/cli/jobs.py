import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from muster.cli.client import Client
from muster.cli.logs import show_timeline
from muster.cli.options import AsJson, Limit, ServerUrl
from muster.cli.tables import Column, Row, ago, console, duration, print_json, show_facts, show_rows
from muster.cli.waiting import exit_by, find_client, progress_in_words, wait_for
from muster.domain.job import JobStatus

_PER_REPLAY = 500

JobIdArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id (muster jobs).")]


def jobs(
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs of this status.")] = None,
    limit: Limit = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where an earlier list ended.")] = None,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """List jobs: waiting ones in the order of the queue, others newest first."""
    query = {"status": status and status.value, "limit": limit, "cursor": cursor}
    page = Client.find(server).get("/api/jobs", **query)
    if as_json:
        print_json(page)
        return
    counts = ", ".join(f"{count} {name}" for name, count in (page.get("counts") or {}).items() if count)
    more = f"; more: muster jobs --cursor {page['next_cursor']}" if page.get("next_cursor") else ""
    empty = "No jobs. Try: muster submit simulation --payload '{\"duration_ms\": 1000}' --wait"
    show_rows(page["jobs"], _COLUMNS, empty=empty, note=counts + more)


job = typer.Typer(no_args_is_help=True, help="Look at one job, or act on it.")


@job.command()
def show(job_id: JobIdArgument, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """Show everything about a job."""
    found = Client.find(server).get(f"/api/jobs/{job_id}")["job"]
    print_json(found) if as_json else show_job(found)


@job.command()
def timeline(job_id: JobIdArgument, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """Show what happened with a job, with the lines of all logs that speak of it."""
    show_timeline(Client.find(server), job_id=job_id, as_json=as_json)


@job.command()
def watch(
    job_id: JobIdArgument,
    timeout_s: Annotated[float, typer.Option(min=1, help="How long to watch.")] = 86_400.0,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Watch a job until it has ended.

    Exit code 0: completed, 1: failed, 3: timed out, 4: cancelled, 5: not ended yet.
    """
    show_end(job_id, timeout_s, as_json=as_json, server=server)


@job.command()
def cancel(job_id: JobIdArgument, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """Cancel a job that has not ended."""
    _act(job_id, "cancel", as_json=as_json, server=server)


@job.command()
def retry(job_id: JobIdArgument, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """Put a failed, timed-out or cancelled job back into the queue."""
    _act(job_id, "retry", as_json=as_json, server=server)


@job.command()
def replay(
    job_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One job; else all that fit the options.")
    ] = None,
    status: Annotated[JobStatus, typer.Option(help="How they ended: failed, timeout or cancelled.")] = JobStatus.FAILED,
    service: Annotated[str | None, typer.Option(help="Only jobs of this service.")] = None,
    code: Annotated[str | None, typer.Option(help="Only jobs that failed with this code of error.")] = None,
    customer: Annotated[str | None, typer.Option(help="Only jobs of this customer.")] = None,
    most: Annotated[int, typer.Option("--max", min=1, help="Look at so many jobs, the newest first.")] = 10_000,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Put one job, or many that ended badly, back into the queue."""
    if job_id is not None:
        _act(job_id, "retry", as_json=as_json, server=server)
        return
    client = Client.find(server)
    wanted = {"status": status.value, "service": service, "code": code, "customer_id": customer}
    body: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    replayed: list[str] = []
    looked_at, cursor = 0, None
    while looked_at < most:
        done = client.post("/api/jobs/replay", body | {"cursor": cursor, "limit": min(_PER_REPLAY, most - looked_at)})
        replayed += done["job_ids"]
        looked_at, cursor = looked_at + done["looked_at"], done["next_cursor"]
        console(stderr=True).print(f"{len(replayed)} of {looked_at} jobs are back in the queue", style="dim")
        if cursor is None:
            break
    if as_json:
        print_json({"replayed": len(replayed), "looked_at": looked_at, "job_ids": replayed})


@job.command()
def explain(job_id: JobIdArgument, as_json: AsJson = False, server: ServerUrl = None) -> None:
    """Say why a job waits: who could run it, and what others lack."""
    explanation = Client.find(server).get(f"/api/jobs/{job_id}/explain")["explanation"]
    print_json(explanation) if as_json else show_explanation(explanation)


def show_explanation(explanation: Row) -> None:
    show_facts(
        [
            ("job", explanation["job_id"]),
            ("status", explanation["status"]),
            ("jobs before it", explanation.get("position")),
        ]
    )
    console().print(explanation["summary"], markup=False)
    if explanation.get("remedy"):
        console().print(explanation["remedy"], markup=False)
    show_rows(
        [candidate for candidate in explanation.get("candidates", []) if candidate.get("mismatches")],
        (
            Column("workers of class", lambda row: row["class_id"]),
            Column("connected", lambda row: row.get("sessions"), right=True),
            Column("cannot, because", lambda row: "; ".join(miss["text"] for miss in row["mismatches"])),
        ),
        empty="",
    )


def _act(job_id: str, action: str, *, as_json: bool, server: str | None) -> None:
    changed = Client.find(server).post(f"/api/jobs/{job_id}/{action}")["job"]
    if as_json:
        print_json(changed)
    else:
        console().print(f"{changed['job_id']} is {changed['status']}", markup=False)


def show_end(job_id: str, timeout_s: float, *, as_json: bool, server: str | None) -> None:
    """Wait for a job, show what came of it, and end with the exit code of that."""
    with find_client(server) as client:
        wait_for(client, job_id, timeout_s)
    found = Client.find(server).get(f"/api/jobs/{job_id}")["job"]
    print_json(found) if as_json else show_job(found)
    exit_by(found["status"])


def show_job(found: Row) -> None:
    error = found.get("error") or {}
    show_facts(
        [
            ("job", found["job_id"]),
            ("service", found["service_required"]),
            ("status", found["status"]),
            ("progress", _progress(found)),
            ("priority", found["priority"]),
            ("worker", found.get("worker_id")),
            ("attempt", f"{found['attempt']} ({found['retry_count']} of {found['max_retries']} retries used)"),
            ("next attempt", _clock(found.get("next_attempt_at"))),
            ("waits for", _waits_for(found)),
            ("cannot run", found.get("reason")),
            ("submitted", _clock(found.get("created_at"))),
            ("started", _clock(found.get("started_at"))),
            ("ended", _clock(found.get("completed_at"))),
            ("took", _took(found)),
            ("workflow", found.get("workflow_id")),
            ("requirements", _compact(found.get("requirements"))),
            ("payload", _compact(found.get("payload"))),
            ("result", _compact(found.get("result"))),
            ("error", f"{error.get('code')}: {error.get('message')}" if error else None),
        ]
    )


def _waits_for(found: Row) -> str | None:
    count = found.get("waiting_for")
    return f"{count} of {len(found['depends_on'])} jobs: {', '.join(found['depends_on'][:5])}" if count else None


def _progress(found: Row) -> str | None:
    progress = found.get("progress") or {}
    return progress_in_words(found["status"], progress.get("fraction"), progress.get("message"))


def _clock(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _took(found: Row) -> str | None:
    started, ended = found.get("started_at"), found.get("completed_at")
    return duration((ended - started) / 1000) if started and ended else None


def _compact(value: Any) -> str | None:
    return None if value in (None, {}, []) else json.dumps(value, ensure_ascii=False)


_COLUMNS = (
    Column("job", lambda row: row["job_id"]),
    Column("service", lambda row: row["service_required"]),
    Column("status", lambda row: row["status"]),
    Column("progress", _progress),
    Column("priority", lambda row: row["priority"], right=True),
    Column("worker", lambda row: row.get("worker_id")),
    Column("attempt", lambda row: row.get("attempt"), right=True),
    Column("submitted", lambda row: ago(row.get("created_at"))),
    Column("error", lambda row: (row.get("error") or {}).get("message") or row.get("reason")),
)
