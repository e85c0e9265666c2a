"""Single services in the book: known from the registration on, and kept from work one by one."""

from typing import Any

import pytest

from muster.control.fleet.candidates import candidates_of
from muster.domain.gpu import Gpu
from muster.domain.service import Dialect, ServiceStatus
from muster.errors import NodeNotFound
from muster.ids import NodeId
from tests.unit.registry.makers import NODE, book, events, heartbeat, kinds, registration, service


def test_a_registration_may_say_what_there_will_be() -> None:
    nodes = book()
    nodes.registered(registration(gpus=(Gpu(index=0),), services=(service("p", ServiceStatus.STARTING),)), "v2", 0)
    node = nodes.get(NODE)
    assert node is not None
    assert [entry.name for entry in node.services] == ["p"]
    assert len(node.gpus) == 1


def test_a_new_life_brings_its_own_services_and_a_silent_registration_takes_none_away() -> None:
    nodes = book()
    nodes.registered(registration(services=(service("p"),)), "v2", 0)
    nodes.registered(registration(boot_id="boot-b", services=(service("q"),)), "v2", 1)
    nodes.registered(registration(boot_id="boot-c"), "v2", 2)
    node = nodes.get(NODE)
    assert node is not None
    assert [entry.name for entry in node.services] == ["q"]


def test_a_service_that_people_drain_stays_so_whatever_the_node_says() -> None:
    nodes = book()
    nodes.heard(heartbeat(1, services=(service("p"), service("q"))), "v2", 0)
    effects = nodes.set_service_draining(NODE, "p", 1, draining=True)
    assert [(event.kind, event.data["service"], event.data["draining"]) for event in events(effects)] == [
        ("service_draining_changed", "p", True)
    ]
    nodes.heard(heartbeat(2, services=(service("p"), service("q"))), "v2", 2)
    node = nodes.get(NODE)
    assert node is not None
    assert node.drained_services == ("p",)
    assert kinds(nodes.set_service_draining(NODE, "p", 3, draining=True)) == []
    assert kinds(nodes.set_service_draining(NODE, "p", 4, draining=False)) == ["service_draining_changed"]


def test_placement_sees_a_service_as_draining_by_anybodys_word() -> None:
    nodes = book()
    reached: dict[str, Any] = {"url": "http://h:1", "dialects": (Dialect.OPENAI,)}
    offered = (service("p", **reached), service("q", draining=True, **reached), service("r", **reached))
    nodes.heard(heartbeat(1, services=offered), "v2", 0)
    nodes.set_service_draining(NODE, "p", 1, draining=True)
    node = nodes.get(NODE)
    assert node is not None
    draining = {candidate.service: candidate.draining for candidate in candidates_of(node, late=False)}
    assert draining == {"p": True, "q": True, "r": False}


def test_a_node_that_is_not_there_has_no_services_to_drain() -> None:
    with pytest.raises(NodeNotFound):
        book().set_service_draining(NodeId("nobody"), "p", 0, draining=True)
