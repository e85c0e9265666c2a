"""The worlds that tests play: small, and rough enough that every kind of fault strikes."""

from typing import Any

import msgspec

from muster.sim.faults import Faults
from muster.sim.scenario import Scenario

ROUGH = Faults(
    node_crashes=8, node_stops=3, node_cuts=8, node_away_s=(1, 150), plane_restarts=15, plane_cuts=15, store_outages=15
)


def small(seed: int, **changes: Any) -> Scenario:
    scenario = Scenario(seed=seed, planes=1 + seed % 3, nodes=10, jobs=100, hours=0.2, job_s=(0.5, 30.0), faults=ROUGH)
    return msgspec.structs.replace(scenario, **changes)
