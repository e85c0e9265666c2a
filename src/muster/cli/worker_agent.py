"""The command `worker-agent`: `muster agent` under the name that service files of older fleets use."""

import typer

from muster.cli.agent import agent
from muster.cli.main import run

app = typer.Typer(
    name="worker-agent",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(agent)


def main() -> None:
    run(app, "worker-agent")


if __name__ == "__main__":
    main()
