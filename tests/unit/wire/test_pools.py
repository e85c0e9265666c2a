"""What older nodes say, in whatever words, and what it comes to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.node import Health, Node, NodeFacts
from muster.domain.service import Dialect, ServiceStatus
from muster.errors import InvalidInput
from muster.ids import NodeId
from muster.wire.pools import (
    PoolHeartbeat,
    PoolStatus,
    RegisterNode,
    base_url,
    heartbeat_of,
    read_gpus,
    registration_of,
)

_NODE = Node(facts=NodeFacts(node_id=NodeId("n1"), service_url="http://h:1"), health=Health.HEALTHY, boot_id="b", seq=4)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("entry", "total_mb", "used_mb"),
    [
        ({"vram_gb": 24}, 24 * 1024, None),
        ({"vram_total_bytes": 24 * 2**30, "vram_free_bytes": 20 * 2**30}, 24 * 1024, 4 * 1024),
        ({"memory_total_mb": 8192, "memory_used_mb": 100}, 8192, 100),
        ({"vram_gb": "24"}, None, None),
        ({"vram_gb": -1}, None, None),
        ({"vram_gb": True}, None, None),
        ({"vram_gb": 1e300}, None, None),
    ],
)
def test_memory_is_read_in_the_unit_that_its_name_says(entry: Any, total_mb: int | None, used_mb: int | None) -> None:
    (gpu,) = read_gpus([entry])
    assert (gpu.memory_total_mb, gpu.memory_used_mb) == (total_mb, used_mb)


@given(_ANYTHING)
def test_capabilities_may_be_anything(found: object) -> None:
    message = RegisterNode(node_id="n1", capabilities={"gpus": found, "cpu_cores": found})
    registration = registration_of(message, "boot-1", 10.0)
    assert [gpu.index for gpu in registration.gpus] == list(range(len(registration.gpus)))


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://h:1/", "http://h:1"),
        ("h:1", "http://h:1"),
        ("h", "http://h"),
        ("https://h/x", "https://h/x"),
        ("", None),
    ],
)
def test_an_address_may_be_a_url_or_less(address: str, url: str | None) -> None:
    assert base_url(address, "address") == url


@pytest.mark.parametrize("address", ["http://", "h:x", "h:0", "http://[::1", "a b", "ünï.example"])
def test_what_is_no_address_is_refused_by_name(address: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        base_url(address, "address")
    assert refused.value.field == "address"


def test_a_heartbeat_follows_the_last_one_and_keeps_what_it_does_not_say() -> None:
    pools = [
        PoolStatus(pool_id="p", ready=True, slots_free=1, slots_total=4, engine="Ollama", models_available=["m", "m"])
    ]
    heartbeat = heartbeat_of(PoolHeartbeat(pools=pools), _NODE, 10.0)
    assert (heartbeat.boot_id, heartbeat.seq, heartbeat.facts) == ("b", 5, _NODE.facts)
    (service,) = heartbeat.services
    assert (service.status, service.slots, service.slots_busy) == (ServiceStatus.RUNNING, 4, 3)
    assert (service.connector, service.dialects) == ("ollama", (Dialect.OLLAMA, Dialect.OPENAI))
    assert [model.name for model in service.models] == ["m"]
    assert service.url == "http://h:1"


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (PoolStatus(pool_id="p"), ServiceStatus.STARTING),
        (PoolStatus(pool_id="p", last_error="no room"), ServiceStatus.UNHEALTHY),
        (PoolStatus(pool_id="p", ready=True, last_error="was slow"), ServiceStatus.RUNNING),
    ],
)
def test_a_pool_that_is_not_ready_says_whether_it_is_broken(status: PoolStatus, shown: ServiceStatus) -> None:
    (service,) = heartbeat_of(PoolHeartbeat(pools=[status]), _NODE, 10.0).services
    assert service.status is shown


def test_gpus_in_a_heartbeat_make_it_a_gpu_worker() -> None:
    assert heartbeat_of(PoolHeartbeat(gpus=[{"name": "L4"}]), _NODE, 10.0).facts.node_type == "gpu-worker"
