import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from muster.cli.client import Client
from muster.cli.jobs import show_end
from muster.cli.options import AsJson, ServerUrl
from muster.cli.tables import Row, console, print_json
from muster.domain.job import JobStatus

REQUIREMENTS = "What the worker must have"

AfterAnyEnd = Annotated[bool, typer.Option("--after-any-end", help="Run also when a job of --after does not complete.")]
WorkflowPriority = Annotated[
    int | None, typer.Option(min=0, max=100, help="Of all steps of the workflow, in place of --priority.")
]
Labels = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="A label; may be given several times.", rich_help_panel=REQUIREMENTS),
]


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
    after_any_end: AfterAnyEnd = False,
    workflow: Annotated[str | None, typer.Option(metavar="ID", help="The workflow that it is a step of.")] = None,
    workflow_priority: WorkflowPriority = None,
    step: Annotated[int | None, typer.Option(min=0, help="Which step of the workflow it is.")] = None,
    webhook_url: Annotated[str | None, typer.Option(metavar="URL", help="Tell this address how it ended.")] = None,
    key: Annotated[str | None, typer.Option("--idempotency-key", help="The same key twice is one job.")] = None,
    require_model: Annotated[
        list[str] | None, typer.Option(help="A model; may be given several times.", rich_help_panel=REQUIREMENTS)
    ] = None,
    require_gpu_memory_gb: Annotated[
        float | None, typer.Option(min=0, help="GPU memory.", rich_help_panel=REQUIREMENTS)
    ] = None,
    require_label: Labels = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Wait for the end. Exit code 0: completed, 1: failed, 3: timed out, 4: cancelled, 5: not ended yet.",
        ),
    ] = False,
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
        "on_failure": "run" if after_any_end else None,
        "workflow_id": workflow,
        "workflow_priority": workflow_priority,
        "step_number": step,
        "webhook_url": webhook_url,
        "idempotency_key": key,
        "requirements": {name: value for name, value in needs.items() if value} or None,
    }
    accepted = Client.find(server).post(
        "/api/jobs", {name: value for name, value in wanted.items() if value is not None}
    )
    if not wait:
        print_json(accepted["job"]) if as_json else _say_accepted(accepted)
        return
    show_end(accepted["job_id"], wait_timeout_s, as_json=as_json, server=server)


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
