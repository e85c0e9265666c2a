from typing import Annotated

import msgspec
import typer

from muster.cli.options import AsJson
from muster.cli.tables import print_json


def sim(
    seed: Annotated[int, typer.Option(min=0, help="Which world; the same seed always goes the same way.")],
    nodes: Annotated[int | None, typer.Option(min=1, help="Machines of the fleet.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers of each machine.")] = None,
    jobs: Annotated[int | None, typer.Option(min=0, help="Jobs submitted while faults strike.")] = None,
    hours: Annotated[float | None, typer.Option(min=0, help="Virtual hours of faults before the peace.")] = None,
    calm: Annotated[bool, typer.Option("--calm", help="No faults but failing jobs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Play a fleet on the real rules in virtual time with faults; exit code 1 when a rule did not hold."""
    from muster.sim.faults import CALM, Faults
    from muster.sim.report import render
    from muster.sim.scenario import Scenario
    from muster.sim.world import run

    sizes = {"nodes": nodes, "workers_per_node": workers, "jobs": jobs, "hours": hours}
    given = {name: value for name, value in sizes.items() if value is not None}
    scenario = msgspec.structs.replace(Scenario(seed=seed, faults=CALM if calm else Faults()), **given)
    report = run(scenario)
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        print(render(report))
    if not report.ok:
        raise typer.Exit(1)
