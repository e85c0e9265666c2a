"""Which fault comes when, to whom, for how long: drawn from the seed, so that a campaign can be repeated."""

from collections.abc import Mapping, Sequence
from random import Random

from msgspec import Struct

AGENT, PLANE, STORE, BROKER = "agent", "plane", "store", "broker"

# Kind: whom it befalls, and how long it lasts (least, most, in seconds). A lease is five seconds: some outlast it.
KINDS: Mapping[str, tuple[str, float, float]] = {
    "agent_killed": (AGENT, 0.5, 4.0),
    "agent_stopped": (AGENT, 0.5, 4.0),  # as for an update
    "agent_frozen": (AGENT, 2.0, 12.0),
    "agent_cut_off": (AGENT, 1.0, 10.0),  # its connections are refused
    "agent_unheard": (AGENT, 2.0, 12.0),  # its connections carry nothing, and all of it later
    "plane_killed": (PLANE, 0.5, 5.0),
    "plane_stopped": (PLANE, 0.5, 5.0),
    "plane_frozen": (PLANE, 2.0, 10.0),
    "plane_without_store": (PLANE, 2.0, 8.0),
    "store_killed": (STORE, 0.2, 4.0),
    "store_frozen": (STORE, 1.0, 6.0),
    "broker_killed": (BROKER, 0.5, 5.0),
    "broker_stopped": (BROKER, 0.5, 5.0),
}


class Fault(Struct, frozen=True, kw_only=True):
    """`at_s` counts from the start of the campaign."""

    kind: str
    target: str
    at_s: float
    lasts_s: float

    @property
    def ends_s(self) -> float:
        return self.at_s + self.lasts_s


def draw(
    seed: int, targets: Mapping[str, Sequence[str]], *, count: int, from_s: float, every_s: float, longest_s: float
) -> list[Fault]:
    """Draw faults, each kind as often as the others; they overlap, but no target has two at once."""
    rng = Random(f"{seed} faults")
    faults: list[Fault] = []
    free_at_s: dict[str, float] = {}
    kinds: list[str] = []
    for number in range(count):
        if not kinds:
            kinds = rng.sample(sorted(KINDS), len(KINDS))
        kind = kinds.pop()
        group, least_s, most_s = KINDS[kind]
        at_s = from_s + every_s * (number + rng.uniform(0, 0.8))
        lasts_s = round(min(longest_s, rng.uniform(least_s, most_s)), 1)
        free = [(max(at_s, free_at_s.get(name, 0.0)), rng.random(), name) for name in targets[group]]
        starts_s, _, target = min(free)
        fault = Fault(kind=kind, target=target, at_s=round(starts_s, 1), lasts_s=lasts_s)
        faults.append(fault)
        free_at_s[target] = fault.ends_s + every_s  # some time to be itself again
    return sorted(faults, key=lambda fault: fault.at_s)
