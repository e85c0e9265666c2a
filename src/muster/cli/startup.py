"""What a person sees while Muster starts in the foreground, and once it is up."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from muster.cli.tables import console


class StartupDisplay:
    """Steps one a line; on a terminal a bar where a fraction is known, elsewhere every tenth of the way."""

    def __init__(self, *, with_token: bool) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        self._out = console(stderr=True)
        self._with_token = with_token
        self._said = ""
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=self._out,
            transient=True,
            disable=not self._out.is_terminal,
        )
        self._task = self._bar.add_task("", visible=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def progress(self, message: str, fraction: float | None) -> None:
        if fraction is None:
            self._say(message)
        elif self._out.is_terminal:
            self._bar.update(self._task, description=message, total=1.0, completed=fraction, visible=fraction < 1)
        else:
            self._say(f"{message}: {int(fraction * 10) * 10} %")

    def ready(self, urls: Sequence[str], model: str | None) -> None:
        self._bar.stop()
        for line in welcome(urls, model, with_token=self._with_token):
            self._out.print(line, markup=False)
        self._out.print("Ctrl-C stops it.", style="dim")

    def _say(self, line: str) -> None:
        if line != self._said:
            self._out.print(f"  {line}", markup=False, style="dim")
        self._said = line


def welcome(urls: Sequence[str], model: str | None, *, with_token: bool) -> list[str]:
    url = urls[0]
    lines = [
        "Muster is up.",
        f"  Monitor     {url}/",
        f"  OpenAI API  {url}/v1",
        f"  Ollama API  {url}",
        f"  HTTP API    {url}/docs",
        "Try:",
    ]
    if model is not None:
        body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Say hello."}}], "stream": true}}'
        token = ' -H "Authorization: Bearer $MUSTER_TOKEN"' if with_token else ""
        lines.append(f"  curl -N {url}/v1/chat/completions{token} -H 'Content-Type: application/json' -d '{body}'")
    lines.append("  .venv/bin/muster submit simulation --payload '{\"duration_ms\": 1000}' --wait")
    return lines
