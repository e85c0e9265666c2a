import os
import sys
from typing import Annotated

import typer

from muster.cli.options import DataDir, GatewayWorkers, Listen, settings_from


def server(
    listen: Listen = None,
    data_dir: DataDir = None,
    valkey_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An outside Valkey or Redis >= 7; otherwise Muster starts its own."),
    ] = None,
    gateway_workers: GatewayWorkers = None,
) -> None:
    """Run the control plane alone: registry, queue, gateway, monitor. Off loopback it needs MUSTER_TOKEN."""
    flags = {"listen": listen, "data_dir": data_dir, "valkey_url": valkey_url, "gateway_workers": gateway_workers}
    if "muster.app.serve" in sys.modules:  # as in a process forked from one that has loaded all
        from muster.app.serve import run_server

        raise typer.Exit(run_server(settings_from(**flags)))
    given = {f"MUSTER_{name.upper()}": value for name, value in flags.items() if value is not None}
    command = (sys.executable, "-P", "-m", "muster.cli.serving")
    os.execve(command[0], command, {**os.environ, **given})  # noqa: S606 - no shell is wanted
