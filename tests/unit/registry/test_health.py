import pytest

from muster.domain.node import Health
from muster.errors import InvalidTransition
from muster.ids import NodeId
from muster.registry.health import ALIVE, LOST, TABLE, Signal, next_health

HEARD = {
    Signal.HEARD_HEALTHY: Health.HEALTHY,
    Signal.HEARD_DEGRADED: Health.DEGRADED,
    Signal.HEARD_UNHEALTHY: Health.UNHEALTHY,
}
NODE = NodeId("n")


@pytest.mark.parametrize("health", Health)
@pytest.mark.parametrize("signal", HEARD)
def test_a_heartbeat_brings_a_node_back_from_any_state(health: Health, signal: Signal) -> None:
    assert next_health(NODE, health, signal) is HEARD[signal]


@pytest.mark.parametrize("health", Health)
def test_a_registration_is_taken_in_any_state(health: Health) -> None:
    assert next_health(NODE, health, Signal.REGISTERED) is Health.REGISTERING


@pytest.mark.parametrize(
    ("health", "signal"),
    [(Health.STALE, Signal.WENT_STALE), (Health.DEAD, Signal.WENT_STALE), (Health.DEAD, Signal.WENT_DEAD)],
)
def test_silence_leads_down_one_way(health: Health, signal: Signal) -> None:
    with pytest.raises(InvalidTransition, match=f"node n is {health}") as caught:
        next_health(NODE, health, signal)
    assert caught.value.data == {"node_id": "n"}


def test_every_pair_is_in_the_table_but_the_three_that_cannot_be() -> None:
    assert len(TABLE) == len(Health) * len(Signal) - 3


def test_states_are_alive_or_lost_or_registering() -> None:
    assert ALIVE | LOST | {Health.REGISTERING} == set(Health)
    assert not ALIVE & LOST
