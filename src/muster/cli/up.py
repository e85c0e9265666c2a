from collections.abc import Mapping
from typing import Annotated

import typer

from muster.cli import detached
from muster.cli.machine_part import clear_left_behind, start_anew
from muster.cli.options import (
    Attach,
    DataDir,
    GatewayWorkers,
    Gpus,
    Listen,
    Model,
    NodeIdOption,
    Profile,
    settings_from,
)
from muster.cli.running import Running, find_running
from muster.cli.startup import StartupDisplay, welcome
from muster.cli.tables import console
from muster.errors import SetupError
from muster.settings import Settings


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run in the background.")] = False,
    model: Model = None,
    listen: Listen = None,
    data_dir: DataDir = None,
    attach: Attach = None,
    gpus: Gpus = None,
    node_id: NodeIdOption = None,
    profile: Profile = None,
    event_log: Annotated[
        str | None, typer.Option("--event-log", metavar="FILE", help="Write all live events to this file.")
    ] = None,
    gateway_workers: GatewayWorkers = None,
) -> None:
    """Start everything on this machine: control plane, store, gateway, monitor, and an agent with a model.

    With a profile the agent is the machine that it describes, in a process of its own; given once more, that machine
    is stopped and started anew.
    """
    flags = {
        "model": model,
        "listen": listen,
        "data_dir": data_dir,
        "attach": attach,
        "num_gpus": gpus,
        "node_id": node_id,
        "profile": profile,
        "event_log": event_log,
        "gateway_workers": gateway_workers,
    }
    settings = settings_from(**flags)
    running = find_running(settings.data_path)
    if running and settings.profile:
        _start_machine_anew(running, settings)
        return
    if running:
        _say_running(running)
        return
    cleared = clear_left_behind(settings.data_path, settings.stop_timeout_s)
    if cleared:
        print(f"Ended {cleared}.")
    if detach:
        _detach(settings, flags)
        return
    from muster.app.run import run_up

    with StartupDisplay(with_token=bool(settings.token)) as display:
        code = run_up(settings, display.progress, display.ready)
    print("Stopped.")
    raise typer.Exit(code)


def _detach(settings: Settings, flags: Mapping[str, str | None]) -> None:
    with console(stderr=True).status("starting ...") as shown:
        running = detached.start(settings, flags)
        shown.update("getting this machine ready; the first time a model is fetched ...")
        machine = detached.wait_until_ready(running, settings, shown.update)
    model = machine.models[0] if machine and machine.models else None
    for line in welcome(running.urls, model, with_token=bool(settings.token)):
        print(line)
    print(f"It runs in the background (pid {running.pid}, log {running.log}); stop it with: .venv/bin/muster down")
    _tell(machine)


def _start_machine_anew(running: Running, settings: Settings) -> None:
    """Take the machine down and up again; the control plane, its store and its monitors stay as they are."""
    changes = {"num_gpus": settings.num_gpus, "attach": settings.attach}
    timeout_s = settings.stop_timeout_s + detached.STOP_MARGIN_S
    with console(stderr=True).status("stopping the machine, and starting it anew ...") as shown:
        machine = start_anew(running, settings.data_path, changes, timeout_s)
        came = detached.wait_until_ready(running, settings, shown.update)
    print(f"{machine.machine_id} was started anew (pid {machine.pid}, log {machine.log}); {running.url} went on.")
    _tell(came)


def _tell(machine: detached.Machine | None) -> None:
    if machine is None:
        print("This machine is not ready yet; `muster nodes` says when it is.")
    elif machine.failed:
        raise SetupError(
            f"this machine did not come up: {machine.reason}",
            next_step="correct that, then give the same command once more: it starts the machine anew",
        )
    elif machine.reason:
        print(f"But this machine lacks something: {machine.reason}")


def _say_running(running: Running) -> None:
    print(f"Muster already runs on this data directory: {running.url} (pid {running.pid}).")
    print("Nothing was changed. Stop it with `muster down`, or start another with --data-dir and --listen.")
