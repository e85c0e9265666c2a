import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

import typer

from muster.cli.client import Client
from muster.cli.follow import follow
from muster.cli.jobs import progress_in_words, show_job
from muster.cli.options import AsJson, ServerUrl
from muster.cli.tables import Row, console, print_json
from muster.domain.job import TERMINAL, JobStatus
from muster.errors import SetupError

_LOOK_AGAIN_S = 30.0
REQUIREMENTS = "What the worker must have"


def submit(
    service: Annotated[str, typer.Argument(help="What must run it: simulation, llamacpp, openai, ...")],
    payload: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE|-", help="The work: JSON, a file with it, or standard input.")
    ] = None,
    priority: Annotated[int, typer.Option(min=0, max=100, help="Higher goes first.")] = 50,
    max_retries: Annotated[int | None, typer.Option(min=0, help="Attempts after the first one.")] = None,
    timeout_s: Annotated[float | None, typer.Option(min=0, help="How long one attempt may take.")] = None,
    job_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Your own id; the same id twice is one job.")
    ] = None,
    customer: Annotated[str | None, typer.Option(help="On whose behalf.")] = None,
    delay_s: Annotated[float | None, typer.Option(min=0, help="Not before so many seconds.")] = None,
    deadline_s: Annotated[
        float | None, typer.Option(min=1, help="How long the whole job may take, waiting too.")
    ] = None,
    after: Annotated[list[str] | None, typer.Option(metavar="ID", help="A job to be completed first; several.")] = None,
    key: Annotated[str | None, typer.Option("--idempotency-key", help="The same key twice is one job.")] = None,
    require_model: Annotated[
        list[str] | None, typer.Option(help="A model; may be given several times.", rich_help_panel=REQUIREMENTS)
    ] = None,
    require_gpu_memory_gb: Annotated[
        float | None, typer.Option(min=0, help="GPU memory.", rich_help_panel=REQUIREMENTS)
    ] = None,
    require_label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A label; may be given several times.", rich_help_panel=REQUIREMENTS),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 0 only if it completed.")] = False,
    wait_timeout_s: Annotated[float, typer.Option(min=1, help="How long --wait waits.")] = 3600.0,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Submit a job to the queue."""
    hardware = {"gpu_memory_gb": require_gpu_memory_gb} if require_gpu_memory_gb is not None else {}
    needs = {"models": require_model or [], "hardware": hardware, "labels": _labels(require_label or [])}
    wanted = {
        "service_required": service,
        "payload": _payload(payload),
        "priority": priority,
        "max_retries": max_retries,
        "timeout_s": timeout_s,
        "id": job_id,
        "customer_id": customer,
        "delay_s": delay_s,
        "deadline_s": deadline_s,
        "depends_on": after or None,
        "idempotency_key": key,
        "requirements": {name: value for name, value in needs.items() if value} or None,
    }
    client = Client.find(server)
    accepted = client.post("/api/jobs", {name: value for name, value in wanted.items() if value is not None})
    if not wait:
        print_json(accepted["job"]) if as_json else _say_accepted(accepted)
        return
    ended = wait_for(client, accepted["job_id"], wait_timeout_s)
    print_json(ended) if as_json else show_job(ended)
    if ended["status"] != JobStatus.COMPLETED:
        raise typer.Exit(1)


def wait_for(client: Client, job_id: str, timeout_s: float) -> Row:
    """Show how a job goes until it has ended."""
    with _Display() as display:
        for job in _changes(client, job_id, time.monotonic() + timeout_s):
            display.show(job)
            if job["status"] in TERMINAL:
                break
    final: Row = client.get(f"/api/jobs/{job_id}")["job"]
    if final["status"] not in TERMINAL:
        raise SetupError(
            f"{job_id} is still {final['status']} after {timeout_s:g} s",
            next_step=f"muster job explain {job_id} says what it waits for",
        )
    return final


def _changes(client: Client, job_id: str, until: float) -> Iterator[Row]:
    """Follow a job live; a stream begins with the job as it stands, so a new one each time misses nothing for long."""
    job: Row = {}
    while time.monotonic() < until:
        look_again_at = min(until, time.monotonic() + _LOOK_AGAIN_S)
        for message in follow(client, f"/api/jobs/{job_id}/progress", until=look_again_at):
            update = json.loads(message.data)
            if update["type"] == "job_update":
                job = update["job"]
                yield job
            elif update["type"] == "job_progress" and job:
                yield {**job, "progress": update["progress"]}


class _Display:
    """A progress bar on a terminal, one line a change elsewhere; on standard error, so that results can be piped."""

    def __enter__(self) -> Self:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._out = console(stderr=True)
        self._last = ""
        self._bar = None
        if self._out.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TimeElapsedColumn(),
                console=self._out,
                transient=True,
            )
            self._task = self._bar.add_task("submitted", total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, job: Row) -> None:
        words = " ".join(filter(None, [job["job_id"], job["status"], progress_in_words(job)]))
        if self._bar is not None:
            fraction = (job.get("progress") or {}).get("fraction")
            self._bar.update(self._task, description=words, total=None if fraction is None else 1.0, completed=fraction)
        elif words != self._last:
            self._out.print(words, markup=False)
        self._last = words


def _say_accepted(accepted: Row) -> None:
    known = "" if accepted.get("created", True) else " (this id was known; nothing was changed)"
    console().print(f"{accepted['job_id']} is {accepted['job']['status']}{known}", markup=False)
    waits_for_nobody = accepted["job"]["status"] == JobStatus.UNWORKABLE
    next_step = "Nobody can run it yet; why: muster job explain" if waits_for_nobody else "How it goes: muster job show"
    console().print(f"{next_step} {accepted['job_id']}", markup=False, style="dim")


def _payload(text: str | None) -> Any:
    if text is None:
        return {}
    source = "--payload"
    if text == "-":
        text, source = sys.stdin.read(), "standard input"
    elif text.startswith("@"):
        source = text[1:]
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"cannot read {source}: {error}", param_hint="--payload") from None
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{source} is not JSON: {error}", param_hint="--payload") from None


def _labels(pairs: list[str]) -> dict[str, str]:
    labels = dict(pair.partition("=")[::2] for pair in pairs)
    if not all(key and value for key, value in labels.items()):
        raise typer.BadParameter("must be KEY=VALUE", param_hint="--require-label")
    return labels
