from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.domain.gpu import Gpu, GpuOwner
from muster.domain.model import Model
from muster.domain.node import NodeFacts
from muster.domain.process import ProcessFigures
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.errors import InvalidInput
from muster.ids import NodeId, worker_id
from muster.wire import Heartbeat, HeartbeatReply, decode, encode
from muster.wire.agent import Packed, Table
from muster.wire.packing import packed, unpacked

NODE = NodeId("n1")


def heartbeat(**said: Any) -> Heartbeat:
    return Heartbeat(facts=NodeFacts(node_id=NODE), boot_id="b", seq=1, heartbeat_interval_s=10.0, **said)


def service(number: int, **more: Any) -> Service:
    fields: dict[str, Any] = {"connector": "llamacpp", "status": ServiceStatus.RUNNING} | more
    return Service(name=f"llama-{number}", url=f"http://10.0.0.7:{20_000 + number}", pid=1000 + number, **fields)


MANY = heartbeat(
    services=tuple(service(number, models=(Model(name="m", resident=True),)) for number in range(20)),
    workers=tuple(Worker(worker_id=worker_id(NODE, at), index=at, status=WorkerStatus.IDLE) for at in range(8)),
    processes=tuple(
        ProcessFigures(name=f"llama-{at}", group="llama", pid=at, cpu_percent=at / 3 or None) for at in range(20)
    ),
    gpus=(
        Gpu(index=0, owners=(GpuOwner(name="a", memory_mb=1), GpuOwner(name="b", service=True))),
        Gpu(index=1, owners=(), throttled=()),
        Gpu(index=2),
    ),
)


def test_what_is_packed_is_smaller_and_the_same_again_after_its_way() -> None:
    small = packed(MANY)
    assert len(encode(small)) < len(encode(MANY)) / 2
    assert unpacked(decode(encode(small), Heartbeat)) == MANY


def test_a_few_are_told_at_length() -> None:
    few = heartbeat(services=(service(1), service(2)))
    assert packed(few) is few
    assert unpacked(few) is few


def test_an_older_agents_heartbeat_is_understood_and_an_older_control_plane_promises_nothing() -> None:
    older = encode(MANY).replace(b',"packed":null', b"")
    assert unpacked(decode(older, Heartbeat)) == MANY
    assert not decode(b'{"next_heartbeat_ms": 1000}', HeartbeatReply).takes_packed


_texts = st.text(max_size=5)
_services = st.builds(
    Service,
    name=_texts,
    connector=st.sampled_from(["a", "b"]),
    status=st.sampled_from(ServiceStatus),
    url=st.none() | _texts,
    dialects=st.lists(st.sampled_from(Dialect), max_size=2).map(tuple),
    slots=st.none() | st.integers(0, 9),
    managed=st.booleans(),
    restarts=st.integers(0, 3),
    error=st.none() | _texts,
)
_owners = st.builds(GpuOwner, name=_texts, memory_mb=st.none() | st.integers(0, 9), service=st.booleans())
_gpus = st.builds(
    Gpu,
    index=st.integers(0, 9),
    power_w=st.none() | st.floats(0, 500),
    throttled=st.none() | st.lists(_texts, max_size=2).map(tuple),
    owners=st.none() | st.lists(_owners, max_size=3).map(tuple),
)


@settings(max_examples=40)
@given(st.lists(_services, min_size=16, max_size=24), st.lists(_gpus, max_size=4))
def test_nothing_is_ever_lost(services: list[Service], gpus: list[Gpu]) -> None:
    message = heartbeat(services=tuple(services), gpus=tuple(gpus))
    small = packed(message)
    assert small.packed is not None
    assert unpacked(decode(encode(small), Heartbeat)) == message


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (Packed(services=Table(rows=2, columns={"name": ["a"]})), "packed.services.columns.name"),
        (Packed(services=Table(rows=1, same={"name": "a"})), "packed.services"),
        (Packed(services=Table(rows=4096, same={"name": "a" * 5000})), "packed.services.same"),
        (Packed(gpus=Table(rows=1, same={"index": "x"})), "packed.gpus"),
        (Packed(owners=Table(rows=1, same={"name": "a"})), "packed.owned"),
        (Packed(owners=Table(rows=1, same={"name": "a"}), owned=[3]), "packed.owned"),
    ],
)
def test_what_does_not_fit_together_is_refused(broken: Packed, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        unpacked(heartbeat(packed=broken))
    assert (refused.value.field or "").startswith(field)


def test_a_table_cannot_be_made_huge_by_a_number() -> None:
    bomb = b'{"facts":{"node_id":"n"},"boot_id":"b","seq":1,"heartbeat_interval_s":1,"packed":{"workers":{"rows":1e9}}}'
    with pytest.raises(InvalidInput) as refused:
        decode(bomb.replace(b"1e9", b"1000000000"), Heartbeat)
    assert refused.value.field == "packed.workers.rows"
