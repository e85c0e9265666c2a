"""Options that several commands share, and the way from flags to settings."""

from typing import Annotated

import typer

from muster.settings import Settings, load_settings

DataDir = Annotated[
    str | None, typer.Option("--data-dir", metavar="DIR", help="Where Muster keeps its store, logs and state.")
]
ServerUrl = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="The control plane to ask; found by itself on this machine."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs instead of a table.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=500, help="How many at most.")]
Page = Annotated[int, typer.Option("--page", min=1, help="Which page, of --limit entries each.")]
Listen = Annotated[
    str | None, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen; several with commas.")
]
GatewayWorkers = Annotated[
    str | None,
    typer.Option("--gateway-workers", metavar="N", help="Processes that serve the gateway: for more cores than one."),
]
NodeIdOption = Annotated[
    str | None, typer.Option("--node-id", metavar="ID", help="This machine's id; otherwise its host name.")
]
Gpus = Annotated[
    str | None, typer.Option("--gpus", metavar="N", help="How many GPUs this machine must have, or `auto`.")
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="A built-in name, a .gguf file, a directory, or `none`."),
]
Attach = Annotated[
    str | None,
    typer.Option("--attach", metavar="CONNECTOR=URL", help="Services that already run; several with commas."),
]
Profile = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="A machine that is described already: basic-machine-local."),
]


def settings_from(**flags: str | None) -> Settings:
    """Put `flags` (by setting name; None: not given) on top of environment and file."""
    return load_settings(flags)
