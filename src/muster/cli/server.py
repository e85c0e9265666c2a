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
    settings = settings_from(listen=listen, data_dir=data_dir, valkey_url=valkey_url, gateway_workers=gateway_workers)
    from muster.app.serve import run_server

    raise typer.Exit(run_server(settings))
