"""Which world to play."""

from msgspec import Struct

from muster.sim.faults import CALM, Faults


class Scenario(Struct, frozen=True, kw_only=True):
    """Faults strike for `hours`; then there is peace until all jobs ended, for `peace_hours` at most."""

    seed: int
    planes: int = 1
    nodes: int = 20
    workers_per_node: int = 2
    jobs: int = 200
    hours: float = 0.5
    peace_hours: float = 2.0
    heartbeat_interval_s: float = 10.0
    job_s: tuple[float, float] = (0.5, 60.0)
    fail_rate: float = 0.1
    cancel_rate: float = 0.05
    requests_per_minute: float = 20.0
    drains_per_hour: float = 4.0
    heartbeats_only: bool = False
    faults: Faults = Faults()


def calm(seed: int) -> Scenario:
    """Return a world in which nothing goes wrong but jobs themselves."""
    return Scenario(seed=seed, faults=CALM)


def large_fleet(seed: int, nodes: int = 1000) -> Scenario:
    """Return an hour of heartbeats of a large fleet, on the registry alone."""
    faults = Faults(node_crashes=0.2, plane_restarts=1)
    return Scenario(seed=seed, nodes=nodes, hours=1.0, heartbeats_only=True, faults=faults)
