"""Phase 1: the broker's objects, the ports, the basic routes."""

import socket
import urllib.request

from tests.conformance.registration.conftest import Fleet


def test_1_1_the_vhost_has_the_three_durable_exchanges(fleet: Fleet) -> None:
    found = {exchange["name"]: exchange for exchange in fleet.broker_has("exchanges")}
    kinds = {"agents.registration": "direct", "agents.heartbeat": "fanout", "agents.commands": "topic"}
    assert {name: found[name]["type"] for name in kinds} == kinds
    assert all(found[name]["durable"] for name in kinds)


def test_1_1_the_queues_have_their_time_limits(fleet: Fleet) -> None:
    found = {queue["name"]: queue for queue in fleet.broker_has("queues")}
    assert found["registration.control-plane"]["durable"]
    limits = {"registration.control-plane": 300_000, "heartbeat.control-plane": 60_000}
    assert {name: found[name]["arguments"]["x-message-ttl"] for name in limits} == limits


def test_1_1_the_queues_are_bound_by_register_deregister_and_nothing(fleet: Fleet) -> None:
    bound = {
        (binding["source"], binding["destination"], binding["routing_key"]) for binding in fleet.broker_has("bindings")
    }
    assert {
        ("agents.registration", "registration.control-plane", "register"),
        ("agents.registration", "registration.control-plane", "deregister"),
        ("agents.heartbeat", "heartbeat.control-plane", ""),
    } <= bound


def test_1_2_both_ports_accept_connections(fleet: Fleet) -> None:
    for port in (fleet.plane.port, fleet.grpc_port):
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


def test_1_3_health_answers_ok(fleet: Fleet) -> None:
    with urllib.request.urlopen(f"{fleet.plane.url}/health", timeout=10) as answer:
        assert answer.status == 200
        assert answer.read().strip() == b"ok"


def test_1_3_version_answers_json_with_a_version(fleet: Fleet) -> None:
    assert fleet.plane.get("/version")["version"]


def test_1_3_the_fleet_and_the_nodes_are_arrays_even_when_empty(own_fleet: Fleet) -> None:
    fleet = own_fleet.plane.get("/api/v1/fleet")
    assert fleet["nodes"] == []
    assert fleet["summary"]["total_nodes"] == 0
    assert own_fleet.plane.get("/api/v1/nodes") == []


def test_1_3_the_statistics_are_whole_numbers(fleet: Fleet) -> None:
    stats = fleet.plane.get("/api/v1/stats")
    names = ("total_nodes", "healthy_nodes", "unhealthy_nodes", "gpu_nodes", "total_gpus", "connected")
    assert [stats[name] for name in names] == [1, 1, 0, 1, 1, 1]
