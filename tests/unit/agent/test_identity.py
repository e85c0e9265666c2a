import pytest

from muster.agent.config import AgentConfig
from muster.agent.identity import choose_node_id, describe, is_loopback, local_address
from muster.domain.gpu import Gpu
from muster.errors import SetupError
from muster.ids import NodeId


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({"node_id": "a", "machine_id": "b", "instance_id": "c", "hostname": "d"}, "a"),
        ({"machine_id": "b", "instance_id": "c", "hostname": "d"}, "b"),
        ({"instance_id": "i-0abc", "hostname": "d"}, "i-0abc"),
        ({"hostname": "host.example"}, "host.example"),
    ],
)
def test_the_first_name_that_is_given_is_the_nodes(given: dict[str, str], chosen: str) -> None:
    assert choose_node_id(**given) == chosen


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ({"node_id": "unknown", "hostname": "d"}, "node_id"),
        ({"machine_id": "Unknown", "hostname": "d"}, "MACHINE_ID"),
        ({"instance_id": "null", "hostname": "d"}, "INSTANCE_ID"),
        ({"node_id": " ", "hostname": "d"}, "node_id"),
        ({"node_id": "has spaces"}, "node_id"),
        ({}, "the host name"),
    ],
)
def test_a_name_that_names_nothing_is_refused_and_not_replaced_by_another(given: dict[str, str], source: str) -> None:
    with pytest.raises(SetupError, match=f"^{source} does not name this machine") as caught:
        choose_node_id(**given)
    assert "--node-id" in caught.value.next_step


def test_the_address_is_the_one_on_the_way_to_the_control_plane() -> None:
    assert local_address("") == "127.0.0.1"
    assert local_address("http://127.0.0.1:8090") == "127.0.0.1"
    assert local_address("http://localhost") in {"127.0.0.1", "::1"}


def test_a_control_plane_that_has_no_address_yet_leaves_the_host_name() -> None:
    assert local_address("http://nowhere.invalid:8090") not in {"", "127.0.0.1"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1"])
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)
    assert not is_loopback("10.0.0.7")


def test_a_node_says_of_itself_what_it_was_told_and_what_it_sees() -> None:
    config = AgentConfig(node_id=NodeId("gpu-1"), nebula_ip="10.1.0.7", labels={"zone": "a"}, pool="night")
    facts = describe(config, "10.0.0.7", [Gpu(index=0)])
    assert (facts.node_id, facts.node_type, facts.address) == ("gpu-1", "gpu-worker", "10.0.0.7")
    assert (facts.nebula_ip, facts.labels, facts.pool) == ("10.1.0.7", {"zone": "a"}, "night")
    assert facts.version
    assert facts.platform
    assert (facts.cpu_cores or 0) >= 1
    assert describe(config, "10.0.0.7", []).node_type == "cpu-worker"
