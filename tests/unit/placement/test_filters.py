import inspect

import pytest

from muster.domain.model import Model
from muster.domain.node import Health
from muster.domain.service import Dialect, ServiceStatus
from muster.ids import NodeId
from muster.placement import filters
from muster.placement.filters import FILTERS, is_warm, rejections
from muster.placement.wish import Wish
from tests.unit.placement.makers import candidate, warm


def reasons(wished: Wish, *models: str | Model, **fields) -> dict[str, str]:
    return {entry.filter: entry.reason for entry in rejections(candidate("a", *models, **fields), wished)}


def test_a_candidate_in_order_has_nothing_against_it():
    assert reasons(Wish(model="m"), "m") == {}
    assert reasons(Wish(), "m") == {}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"connected": False}, {"connected": "is disconnected"}),
        ({"late": True}, {"late": "has missed heartbeats"}),
        ({"health": Health.UNHEALTHY}, {"health": "is unhealthy"}),
        ({"health": Health.STALE}, {"health": "is stale"}),
        ({"health": Health.DEAD}, {"health": "is dead"}),
        ({"health": Health.DEGRADED}, {}),
        ({"health": Health.REGISTERING}, {}),
        ({"draining": True}, {"draining": "is draining"}),
        ({"status": ServiceStatus.STARTING}, {"service": "has its service starting"}),
        ({"status": ServiceStatus.FAILED}, {"service": "has its service failed"}),
    ],
)
def test_a_worker_that_takes_no_work_is_passed_over(fields, expected):
    assert reasons(Wish(), **fields) == expected


def test_who_is_quarantined_is_passed_over_with_the_reason():
    key = candidate("a", "m").key
    expected = {"quarantined": "is quarantined by the gateway: lost"}
    assert reasons(Wish(model="m", quarantined={key: "lost"}), "m") == expected
    assert reasons(Wish(model="m", quarantined={"another": "lost"}), "m") == {}


def test_the_model_must_be_there_whatever_its_default_tag():
    assert reasons(Wish(model="m:latest"), "m") == {}
    assert reasons(Wish(model="n"), "m") == {"model": "does not have the model n"}


def test_the_model_must_offer_what_is_asked_of_it():
    embedder = Model(name="e", capabilities=("embedding",))
    assert reasons(Wish(model="e", capability="embedding"), embedder) == {}
    assert reasons(Wish(model="e", capability=""), embedder) == {}, "any use of it will do"
    assert reasons(Wish(model="e"), embedder) == {"capability": "does not offer completion with the model e"}


def test_without_a_model_any_that_offers_it_will_do():
    embedder = Model(name="e", capabilities=("embedding",))
    assert reasons(Wish(), "m", embedder) == {}
    assert reasons(Wish(), embedder) == {"capability": "does not offer completion with any of its models"}


def test_a_service_whose_models_are_unknown_may_try_what_names_no_model():
    assert reasons(Wish()) == {}


def test_the_dialect_must_be_one_the_caller_can_use():
    wished = Wish(dialects=frozenset({Dialect.OLLAMA}))
    assert reasons(wished, dialects=(Dialect.OPENAI, Dialect.OLLAMA)) == {}
    assert reasons(wished) == {"dialect": "speaks openai only"}
    assert reasons(wished, dialects=()) == {"dialect": "speaks no known dialect only"}


def test_a_wish_can_be_pinned_to_a_node_or_a_pool():
    assert reasons(Wish(node_id=NodeId("a"))) == {}
    assert reasons(Wish(node_id=NodeId("b"))) == {"node": "is not on node b"}
    assert reasons(Wish(pool="blue"), pool="blue") == {}
    assert reasons(Wish(pool="blue"), pool="red") == {"pool": "is in red, not in blue"}
    assert reasons(Wish(pool="blue")) == {"pool": "is in no pool, not in blue"}


def test_labels_must_be_equal():
    wished = Wish(labels={"zone": "eu", "tier": "1"})
    assert reasons(wished, labels={"zone": "eu", "tier": "1", "x": "y"}) == {}
    assert reasons(wished, labels={"zone": "eu"}) == {"labels": "needs the label tier=1, not set here"}
    assert reasons(wished, labels={"zone": "us"}) == {"labels": "needs the label zone=eu, us here"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"memory_free_mb": 8000}, {}),
        ({"memory_free_mb": 7999}, {"memory": "needs 8000 MB of GPU memory, 7999 free"}),
        ({"memory_free_mb": 0}, {"memory": "needs 7.8 GB of GPU memory, 0 free"}),
        ({"memory_total_mb": 8000}, {}),
        ({"memory_total_mb": 6000}, {"memory": "needs 7.8 GB of GPU memory, 5.9 in all"}),
        ({}, {"memory": "needs 7.8 GB of GPU memory, unknown here"}),
    ],
)
def test_memory_is_judged_by_what_is_known_and_unknown_is_not_enough(fields, expected):
    assert reasons(Wish(model="m", min_memory_mb=8000), "m", **fields) == expected


def test_who_takes_the_memory_from_outside_is_named():
    others = (("blender", 4_200), ("python3", 512), ("a", 3), ("b", 2))
    wished = Wish(model="m", min_memory_mb=21_504)
    assert reasons(wished, "m", memory_free_mb=18_739, memory_of_others=others[:1]) == {
        "memory": "needs 21 GB of GPU memory, 18.3 free: 4.1 GB used by blender"
    }
    assert reasons(wished, "m", memory_free_mb=18_739, memory_of_others=others) == {
        "memory": "needs 21 GB of GPU memory, 18.3 free: 4.1 GB used by blender and 512 MB used by python3 "
        "and 3 MB used by a"
    }
    assert reasons(wished, "m", memory_free_mb=21_504, memory_of_others=others) == {}


def test_little_memory_is_told_in_mb():
    assert reasons(Wish(model="m", min_memory_mb=600), "m", memory_free_mb=500) == {
        "memory": "needs 600 MB of GPU memory, 500 free"
    }
    assert reasons(Wish(model="m", min_memory_mb=600), "m") == {"memory": "needs 600 MB of GPU memory, unknown here"}


def test_a_gpu_out_of_service_takes_its_services_out_and_says_why():
    assert reasons(Wish(), gpu_trouble="it fell off the bus") == {
        "gpu": "has its GPU out of service: it fell off the bus"
    }


def test_a_resident_model_has_its_memory_already():
    assert reasons(Wish(model="m", min_memory_mb=8000), warm("m"), memory_free_mb=0) == {}


def test_a_candidate_that_was_tried_is_passed_over():
    assert reasons(Wish(exclude=frozenset({"a/llama"}))) == {"excluded": "was tried already"}


def test_all_reasons_are_told_the_most_lasting_first():
    assert list(reasons(Wish(model="n"), "m", draining=True, late=True)) == ["model", "late", "draining"]


def test_a_rejection_names_its_candidate():
    (rejection,) = rejections(candidate("a", draining=True), Wish())
    assert rejection.key == "a/llama"


def test_every_filter_of_the_module_is_in_the_list():
    written = {
        name
        for name, function in inspect.getmembers(filters, inspect.isfunction)
        if function.__module__ == filters.__name__ and function.__annotations__["return"] == (str | None)
    }
    assert written == {rule.__name__ for rule in FILTERS}


@pytest.mark.parametrize(("resident", "is_so"), [(True, True), (False, False), (None, False)])
def test_only_a_model_known_to_be_resident_is_warm(resident, is_so):
    assert is_warm(candidate("a", Model(name="m", resident=resident)), Wish(model="m")) is is_so
    assert not is_warm(candidate("a", Model(name="m", resident=resident)), Wish(model="n"))
    assert not is_warm(candidate("a", Model(name="m", resident=resident)), Wish())


def test_what_is_on_disk_only_is_loaded_by_whoever_may_decide_about_the_memory():
    cold, warm_one = Model(name="m", resident=False), warm()
    assert reasons(Wish(model="m"), cold, on_demand=True) == {"resident": "has m on disk only"}
    assert reasons(Wish(model="m"), cold) == {}
    assert reasons(Wish(model="m"), warm_one, on_demand=True) == {}
    assert reasons(Wish(), cold, on_demand=True) == {}
