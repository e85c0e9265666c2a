"""The worlds that tests play: small, and rough enough that every kind of fault strikes."""

from typing import Any

import msgspec

from muster.sim.faults import Faults
from muster.sim.scenario import Scenario

ROUGH = Faults(node_crashes=6, node_stops=2, node_cuts=6, node_away_s=(1, 150), plane_restarts=12, store_outages=12)


def small(seed: int, **changes: Any) -> Scenario:
    scenario = Scenario(seed=seed, nodes=12, jobs=120, hours=0.25, job_s=(0.5, 30.0), faults=ROUGH)
    return msgspec.structs.replace(scenario, **changes)
