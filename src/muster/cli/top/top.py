"""The command itself; what it needs is loaded when it runs."""

import sys
from typing import Annotated

import typer

from muster.cli.client import Client
from muster.cli.options import AsJson, ServerUrl


def top(
    once: Annotated[bool, typer.Option("--once", help="Print one frame with all nodes, and leave.")] = False,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Watch the fleet live: nodes, GPUs, workers, jobs and the gateway; drain, resume and cancel with a key.

    Without a terminal it prints one frame, as with --once. `?` shows the keys.
    """
    from muster.cli.top import show

    client = Client.find(server)
    if as_json:
        show.as_json(client)
    elif once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        show.once(client)
    else:
        show.live(client)
