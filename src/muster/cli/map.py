import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from muster.cli.options import ServerUrl
from muster.cli.tables import console
from muster.cli.waiting import INTERRUPTED, find_client
from muster.errors import InvalidInput


def map_(
    service: Annotated[str, typer.Argument(help="What must run them: simulation, llamacpp, openai, ...")],
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="One payload a line, as JSON; - is standard input.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE|-", help="Where the outcomes go, one JSON object a line.")
    ] = "-",
    in_flight: Annotated[
        int, typer.Option(min=1, max=10_000, help="How many may be under way at once; the file is read as they end.")
    ] = 100,
    priority: Annotated[int, typer.Option(min=0, max=100, help="Higher goes first.")] = 50,
    max_retries: Annotated[int, typer.Option(min=0, help="Attempts after the first one.")] = 3,
    timeout_s: Annotated[float, typer.Option(min=1, help="How long one attempt may take.")] = 3600.0,
    wait_timeout_s: Annotated[float, typer.Option(min=1, help="How long each may take in all.")] = 86_400.0,
    server: ServerUrl = None,
) -> None:
    """Submit a job for each line of a file and write what came of each, line by line.

    Exit code 0 means that all completed.
    """
    failed = ended = 0
    with ExitStack() as opened:
        source: TextIO = sys.stdin if file == "-" else opened.enter_context(_opened(file, "r"))
        target: TextIO = sys.stdout if output == "-" else opened.enter_context(_opened(output, "w"))
        client = opened.enter_context(find_client(server))
        jobs = client.map_jobs(
            service,
            _payloads(source, file),
            in_flight=in_flight,
            wait_s=wait_timeout_s,
            priority=priority,
            max_retries=max_retries,
            timeout_s=timeout_s,
        )
        show = opened.enter_context(_counter(hidden=output == "-"))
        try:
            for job in jobs:
                ended += 1
                failed += not job.ok
                show(ended, failed)
                error = {"code": job.error.code, "message": job.error.message} if job.error is not None else None
                outcome = {"job_id": job.job_id, "status": job.status, "result": job.result, "error": error}
                print(json.dumps(outcome, ensure_ascii=False), file=target, flush=True)
        except KeyboardInterrupt:
            console(stderr=True).print(f"{ended} have ended; those that are under way go on", markup=False)
            raise typer.Exit(INTERRUPTED) from None
    console(stderr=True).print(f"{ended - failed} of {ended} completed", markup=False)
    if failed:
        raise typer.Exit(1)


@contextmanager
def _counter(*, hidden: bool) -> Iterator[Callable[[int, int], None]]:
    """Count on a terminal that the outcomes do not go to."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    out = console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True, disable=hidden or not out.is_terminal) as progress:
        task = progress.add_task("submitting")
        yield lambda ended, failed: progress.update(task, description=f"{ended - failed} completed, {failed} not")


def _opened(file: str, mode: str) -> TextIO:
    try:
        return Path(file).open(mode, encoding="utf-8")  # type: ignore[return-value]  # a text mode gives a text file
    except OSError as error:
        raise typer.BadParameter(f"cannot open {file}: {error.strerror}") from None


def _payloads(source: TextIO, name: str) -> Iterator[Any]:
    for number, line in enumerate(source, start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise InvalidInput(f"line {number} of {name} is not JSON: {error}") from None
