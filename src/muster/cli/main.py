"""The command `muster`: its commands by group."""

from collections.abc import Callable

import typer

from muster import __version__
from muster.cli.agent import agent
from muster.cli.chat import chat
from muster.cli.cloud import cloud
from muster.cli.command import command, commands, drain, resume
from muster.cli.connectors import connectors
from muster.cli.customers import customers
from muster.cli.doctor import doctor
from muster.cli.down import down
from muster.cli.errors import tell_errors
from muster.cli.events import events
from muster.cli.explain import explain
from muster.cli.jobs import job, jobs
from muster.cli.logs import logs
from muster.cli.map import map_
from muster.cli.model import model
from muster.cli.models import models
from muster.cli.nodes import node, nodes
from muster.cli.queues import queues
from muster.cli.schedules import schedules
from muster.cli.server import server
from muster.cli.sim import sim
from muster.cli.status import status
from muster.cli.submit import submit
from muster.cli.token import token
from muster.cli.top.top import top
from muster.cli.up import up
from muster.cli.usage import usage
from muster.cli.webhooks import webhooks
from muster.cli.workers import workers

app = typer.Typer(
    name="muster",
    help="Turns a handful, or a few thousand, GPU machines into one fleet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def version() -> None:
    """Print the version."""
    print(f"muster {__version__}")


COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Run": (up, down, status, server, agent),
    "Look": (top, nodes, node, workers, models, events, logs, usage),
    "Work": (submit, jobs, map_, chat),
    "Act": (command, commands, drain, resume),
    "Help": (doctor, sim, version),
}
for panel, functions in COMMANDS.items():
    for function in functions:
        app.command(function.__name__.rstrip("_"), rich_help_panel=panel)(function)
app.add_typer(job, name="job", rich_help_panel="Work")
app.add_typer(model, name="model", rich_help_panel="Act")
app.add_typer(queues, name="queues", rich_help_panel="Work")
app.add_typer(connectors, name="connectors", rich_help_panel="Work")
app.add_typer(schedules, name="schedules", rich_help_panel="Work")
app.add_typer(customers, name="customers", rich_help_panel="Work")
app.add_typer(explain, name="explain", rich_help_panel="Look")
app.add_typer(token, name="token", rich_help_panel="Run")
app.add_typer(webhooks, name="webhooks", rich_help_panel="Work")
app.add_typer(cloud, name="cloud", rich_help_panel="Run")


def main() -> None:
    run(app, "muster")


def run(program: typer.Typer, name: str) -> None:
    """Run a program; its errors are told in its name."""
    tell_errors(name, lambda: program(prog_name=name))


if __name__ == "__main__":
    main()
