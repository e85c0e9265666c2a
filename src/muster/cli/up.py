from collections.abc import Mapping
from typing import Annotated

import typer

from muster.cli import detached
from muster.cli.options import Attach, DataDir, Gpus, Listen, Model, NodeIdOption, settings_from
from muster.cli.running import Running, find_running
from muster.cli.startup import StartupDisplay, welcome
from muster.cli.tables import console
from muster.settings import Settings


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run in the background.")] = False,
    model: Model = None,
    listen: Listen = None,
    data_dir: DataDir = None,
    attach: Attach = None,
    gpus: Gpus = None,
    node_id: NodeIdOption = None,
) -> None:
    """Start everything on this machine: control plane, store, gateway, monitor, and an agent with a model."""
    flags = {
        "model": model,
        "listen": listen,
        "data_dir": data_dir,
        "attach": attach,
        "num_gpus": gpus,
        "node_id": node_id,
    }
    settings = settings_from(**flags)
    running = find_running(settings.data_path)
    if running:
        _say_running(running)
        return
    if detach:
        _detach(settings, flags)
        return
    from muster.app import run_up

    with StartupDisplay(with_token=bool(settings.token)) as display:
        code = run_up(settings, display.progress, display.ready)
    print("Stopped.")
    raise typer.Exit(code)


def _detach(settings: Settings, flags: Mapping[str, str | None]) -> None:
    with console(stderr=True).status("starting ...") as shown:
        running = detached.start(settings, flags)
        shown.update("getting this machine ready; the first time a model is fetched ...")
        machine = detached.wait_until_ready(running, settings)
    model = machine.models[0] if machine and machine.models else None
    for line in welcome(running.urls, model, with_token=bool(settings.token)):
        print(line)
    if machine is None:
        print("This machine is not ready yet; `muster nodes` says when it is.")
    elif machine.reason:
        print(f"But this machine lacks something: {machine.reason}")
    print(f"It runs in the background (pid {running.pid}, log {running.log}); stop it with: .venv/bin/muster down")


def _say_running(running: Running) -> None:
    print(f"Muster already runs on this data directory: {running.url} (pid {running.pid}).")
    print("Nothing was changed. Stop it with `muster down`, or start another with --data-dir and --listen.")
