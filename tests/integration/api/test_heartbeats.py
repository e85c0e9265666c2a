"""Heartbeats over HTTP take a way of their own, which nobody must notice."""

import pytest

from muster.domain.node import NodeFacts
from muster.ids import NodeId
from muster.wire import Heartbeat, HeartbeatReply, decode, encode
from tests.integration.api.conftest import Served

PATH = "/api/agent/heartbeat"
BEAT = encode(Heartbeat(facts=NodeFacts(node_id=NodeId("n1")), boot_id="b1", seq=1, heartbeat_interval_s=2.0))


async def post(served: Served, data: bytes) -> tuple[int, dict[str, str], bytes]:
    async with served.client.post(PATH, data=data) as response:
        return response.status, {name.lower(): value for name, value in response.headers.items()}, await response.read()


async def test_a_heartbeat_is_heard_and_answered(served: Served) -> None:
    status, headers, body = await post(served, BEAT)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert headers["x-correlation-id"].startswith("req-")
    assert decode(body, HeartbeatReply) == HeartbeatReply(next_heartbeat_ms=2000, known=False, takes_packed=True)
    assert [node.node_id for node in served.plane.fleet.nodes()] == ["n1"]


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"", 400, b"the body is not valid JSON: it is empty"),
        (b'{"facts": {"node_id": "a", "cpu_cores": "many"}}', 400, b'"field":"facts.cpu_cores"'),
        (BEAT.replace(b'"n1"', b'"unknown"'), 400, b'"field":"node_id"'),
        (BEAT + b" " * 10_000, 413, b"setting request_bytes_max"),
    ],
    ids=["empty", "odd", "nameless", "large"],
)
async def test_what_does_not_fit_is_refused_as_everywhere(
    served: Served, data: bytes, status: int, said: bytes
) -> None:
    found, headers, body = await post(served, data)
    assert (found, headers["content-type"]) == (status, "application/json")
    assert said in body
    assert served.plane.fleet.nodes() == []


async def test_a_fault_of_ours_is_told_without_its_inside(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.plane.ingest, "heartbeat", None)
    status, _, body = await post(served, BEAT)
    assert status == 500
    assert b"internal_error" in body
    assert b"NoneType" not in body


async def test_other_methods_are_the_frameworks(served: Served) -> None:
    async with served.client.get(PATH) as response:
        assert response.status == 405
