import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.node import Health, Node, NodeFacts
from muster.domain.service import ServiceStatus
from muster.errors import InvalidInput
from muster.ids import NodeId
from muster.links.amqp.messages import (
    HeartbeatMessage,
    RegistrationMessage,
    deregistration_body,
    heartbeat_body,
    read_deregistration,
    read_heartbeat,
    read_registration,
    registration_body,
    wants_to_leave,
)
from muster.wire import Deregistration, Heartbeat, Registration, decode, encode
from tests.contract.links.planes import EXCHANGES, FACTS, NODE

REGISTRATION: Registration = EXCHANGES[0][1]
HEARTBEAT: Heartbeat = EXCHANGES[1][1]
DEREGISTRATION: Deregistration = EXCHANGES[3][1]
KNOWN = Node(facts=FACTS, health=Health.HEALTHY, boot_id="boot-a", seq=3, heartbeat_interval_s=2.5, draining=True)


def new_boot() -> str:
    return "boot-new"


def heard(body: Any, known: Node | None = None) -> Heartbeat:
    return read_heartbeat(decode(encode(body), HeartbeatMessage), known, new_boot)


def test_our_own_messages_are_read_as_they_were_meant() -> None:
    registration = decode(registration_body(REGISTRATION, 0), RegistrationMessage)
    assert read_registration(registration, None, new_boot) == REGISTRATION
    heartbeat = decode(heartbeat_body(HEARTBEAT, 0), HeartbeatMessage)
    assert read_heartbeat(heartbeat, None, new_boot) == HEARTBEAT
    goodbye = decode(deregistration_body(DEREGISTRATION, 0), RegistrationMessage)
    assert read_deregistration(goodbye, None, new_boot) == DEREGISTRATION


def test_the_documented_fields_are_on_the_wire() -> None:
    registration = msgspec.json.decode(registration_body(REGISTRATION, 1_767_225_600_000))
    assert (
        registration.items()
        >= {
            "action": "register",
            "node_id": "gpu-1",
            "node_type": "gpu-worker",
            "nebula_ip": "10.1.0.7",
            "public_ip": None,
            "region": None,
            "az": None,
            "timestamp": "2026-01-01T00:00:00.000Z",
            "phase": "configuring",
            "heartbeat_interval_s": 2.5,
            "version": None,
        }.items()
    )
    assert registration["capabilities"]["cpu_cores"] == 8
    heartbeat = msgspec.json.decode(heartbeat_body(HEARTBEAT, 1_767_225_600_000))
    assert heartbeat["status"] == "degraded"
    assert list(heartbeat["services"]) == ["llama-gpu0"]
    assert heartbeat["resources"]["models_loaded"] == ["m"]
    assert heartbeat["resources"]["memory_used_mb"] is None  # unknown, and there all the same
    assert heartbeat["resources"]["gpus"][0]["name"] == "RTX 4090"
    assert heartbeat["workers"][0]["worker_id"] == "gpu-1-worker-0"
    assert heartbeat["timestamp"] == "2026-01-01T00:00:00.000Z"


def test_a_node_id_alone_is_a_heartbeat() -> None:
    assert heard({"node_id": "a"}) == Heartbeat(
        facts=NodeFacts(node_id=NodeId("a")), boot_id="boot-new", seq=0, heartbeat_interval_s=30.0
    )


def test_where_a_message_is_silent_the_record_holds() -> None:
    heartbeat = heard({"node_id": NODE, "region": "eu"}, KNOWN)
    assert heartbeat.facts == msgspec.structs.replace(FACTS, region="eu")
    assert (heartbeat.boot_id, heartbeat.seq, heartbeat.heartbeat_interval_s) == ("boot-a", 4, 2.5)
    assert heartbeat.draining  # it was not asked, so it has nothing to correct


def test_each_registration_without_a_boot_id_is_a_new_life() -> None:
    message = RegistrationMessage(node_id=NODE, capabilities={"gpus": ["?"], "cpu_cores": "many"})
    registration = read_registration(message, KNOWN, new_boot)
    assert (registration.boot_id, registration.facts.cpu_cores) == ("boot-new", None)
    assert read_deregistration(message, KNOWN, new_boot).boot_id == "boot-a"
    assert read_deregistration(message, None, new_boot).boot_id == "boot-new"


@pytest.mark.parametrize(
    ("action", "key", "leaves"),
    [
        (None, "register", False),
        (None, "deregister", True),
        ("deregister", "register", True),
        ("register", "deregister", False),
    ],
)
def test_the_action_is_said_by_the_message_or_else_by_its_key(action: Any, key: str, *, leaves: bool) -> None:
    assert wants_to_leave(RegistrationMessage(node_id=NODE, action=action), key) is leaves


@pytest.mark.parametrize(
    ("said", "status", "error"),
    [
        ("running", ServiceStatus.RUNNING, None),
        ("Healthy", ServiceStatus.RUNNING, None),
        (True, ServiceStatus.RUNNING, None),
        (False, ServiceStatus.STOPPED, None),
        ("stopped", ServiceStatus.STOPPED, None),
        ("on fire", ServiceStatus.UNHEALTHY, "its agent calls it 'on fire'"),
        ({"status": "failed", "error": "no memory"}, ServiceStatus.FAILED, "no memory"),
        ({"slots": 3}, ServiceStatus.RUNNING, None),
    ],
)
def test_services_may_be_told_in_one_word(said: object, status: ServiceStatus, error: str | None) -> None:
    (service,) = heard({"node_id": "a", "services": {"ollama": said}}).services
    assert (service.name, service.status, service.error) == ("ollama", status, error)


def test_loaded_models_that_no_service_lists_are_kept_all_the_same() -> None:
    services = {"ollama": {"models": [{"name": "llama3"}]}}
    heartbeat = heard(
        {"node_id": "a", "services": services, "resources": {"models_loaded": ["llama3", "qwen", "qwen"]}}
    )
    assert [[model.name for model in service.models] for service in heartbeat.services] == [["llama3"], ["qwen"]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"node_id": "a", "resources": {"memory_total_mb": "much"}}, "resources.memory_total_mb"),
        ({"node_id": "a", "services": []}, "services"),
        ({"node_id": "a", "services": {"x": {"slots": "many"}}}, "services.x.slots"),
        ({"node_id": "a", "workers": [{"status": "tired"}]}, "workers.status"),
        ({"node_id": "a", "status": "splendid"}, "status"),
        ({"node_id": ""}, "node_id"),
        ({"node_id": "Unknown"}, "node_id"),
        ({"node_id": "a", "facts": {"node_id": "b"}}, "facts.node_id"),
        ({}, "node_id"),
    ],
)
def test_what_does_not_fit_is_named(body: object, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        heard(body)
    assert caught.value.field == field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PARTS = ("services", "resources", "workers", "facts", "status", "labels", "seq", "draining", "capabilities", "gpus")


@given(st.fixed_dictionaries({"node_id": st.just("a")}, optional=dict.fromkeys(PARTS, JSON)))
def test_any_json_is_read_or_refused(body: dict[str, Any]) -> None:
    for kind, read in ((HeartbeatMessage, read_heartbeat), (RegistrationMessage, read_registration)):
        with contextlib.suppress(InvalidInput):
            read(decode(encode(body), kind), None, new_boot)  # type: ignore[arg-type]  # each with its own kind
