"""Waiting for a job at the keyboard: how it goes on standard error, what came of it as the exit code."""

import sys
from typing import TYPE_CHECKING, NoReturn, Self

import typer

from muster.cli.client import find_address
from muster.cli.tables import console
from muster.domain.job import JobStatus

if TYPE_CHECKING:
    from muster.client import Client, Job

STILL_GOING = 5
INTERRUPTED = 130
_EXIT_CODES = {JobStatus.COMPLETED: 0, JobStatus.FAILED: 1, JobStatus.TIMEOUT: 3, JobStatus.CANCELLED: 4}


def find_client(server: str | None) -> "Client":
    """Return a client of the control plane that the command is for; it takes a moment to load, so only when needed."""
    from muster.client import Client

    url, token, tls = find_address(server)
    return Client(url, token=token, tls=tls)


def wait_for(client: "Client", job_id: str, timeout_s: float) -> "Job":
    """Show how a job goes until it has ended; Ctrl-C asks whether it shall go on without us."""
    from muster.client import WaitTimedOut

    try:
        with _Display() as display:
            for job in client.stream(job_id, timeout_s):
                display.show(job)
    except WaitTimedOut as too_long:
        say = console(stderr=True).print
        say(f"muster: {too_long.message}", markup=False)
        say(f"Next: muster job explain {job_id} says what it waits for", markup=False)
        raise typer.Exit(STILL_GOING) from None
    except KeyboardInterrupt:
        _leave(client, job_id)
    return job


def exit_by(status: str) -> None:
    """End with the exit code of this outcome; a completed job lets the command go on."""
    code = _EXIT_CODES.get(JobStatus(status), 1)
    if code:
        raise typer.Exit(code)


def progress_in_words(status: str, fraction: float | None, message: str | None) -> str | None:
    if status == JobStatus.COMPLETED:
        return None  # the last report before the end says nothing any more
    parts = [f"{fraction:.0%}" if fraction is not None else None, message]
    return " ".join(part for part in parts if part) or None


def _leave(client: "Client", job_id: str) -> NoReturn:
    """Offer to cancel the job; where nobody can answer it goes on."""
    say = console(stderr=True).print
    try:
        if sys.stdin.isatty() and typer.confirm(f"\nCancel {job_id} as well?", default=False, err=True):
            say(f"{job_id} is {client.cancel(job_id).status}", markup=False)
            raise typer.Exit(INTERRUPTED)
    except (typer.Abort, KeyboardInterrupt):  # once more: let it be
        pass
    say(f"{job_id} goes on. How it goes: muster job watch {job_id}; end it: muster job cancel {job_id}", markup=False)
    raise typer.Exit(INTERRUPTED)


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

    def show(self, job: "Job") -> None:
        message = job.progress.message if job.progress is not None else None
        words = " ".join(filter(None, [job.job_id, job.status, progress_in_words(job.status, job.fraction, message)]))
        if self._bar is not None:
            total = None if job.fraction is None else 1.0
            self._bar.update(self._task, description=words, total=total, completed=job.fraction)
        elif words != self._last:
            self._out.print(words, markup=False)
        self._last = words
