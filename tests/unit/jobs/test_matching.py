"""Matching: its rules, and as tests the faults of the matching that came before it."""

from typing import Any

import pytest

from muster.domain.capability import Capability, CustomerAccess
from muster.domain.job import JobSpec, Need, Requirements
from muster.errors import InvalidInput
from muster.jobs.matching import Mismatch, admits, class_id, match, normalised, signature, special_customers
from muster.wire import decode, encode


def need(service: str = "comfyui", **requirements: Any) -> Need:
    return Need(service=service, requirements=decode(encode(requirements), Requirements))


def worker(**fields: Any) -> Capability:
    return Capability(**({"services": ("comfyui",)} | fields))


def lacks(wanted: Need, capability: Capability) -> list[str]:
    return [mismatch.requirement for mismatch in match(wanted, capability)]


def text(wanted: Need, capability: Capability) -> str:
    (mismatch,) = match(wanted, capability)
    return mismatch.text


# --- service and models ----------------------------------------------------------------------------------------------


def test_a_job_without_requirements_runs_wherever_its_service_is():
    assert match(need(), worker()) == ()


def test_the_service_must_be_offered():
    assert match(need("ollama"), worker()) == (
        Mismatch(
            requirement="service",
            wanted="ollama",
            found=("comfyui",),
            text="needs the service ollama, offers comfyui",
            remedy="offer the service ollama",
        ),
    )
    assert text(need("ollama"), worker(services=())) == "needs the service ollama, offers none"


def test_all_models_must_be_there_and_each_missing_one_is_named():
    have = worker(models=("b",))
    assert [mismatch.text for mismatch in match(need(models=["a", "b", "c"]), have)] == [
        "lacks the model a",
        "lacks the model c",
    ]


def test_the_default_tag_of_a_model_makes_no_difference():
    assert match(need(models=["llama3"]), worker(models=("llama3:latest",))) == ()
    assert match(need(models=["llama3:latest"]), worker(models=("llama3",))) == ()
    assert lacks(need(models=["llama3:8b"]), worker(models=("llama3",))) == ["models"]


def test_lesson_a_worker_whose_models_are_all_has_every_model():
    assert match(need(models=["a", "b"]), worker(models=("all",))) == ()


# --- hardware and labels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["gpu_memory_gb", "cpu_cores", "ram_gb"])
def test_hardware_is_a_lower_bound(field):
    wanted = need(hardware={field: 16})
    assert match(wanted, worker(**{field: 16})) == ()
    assert match(wanted, worker(**{field: 17})) == ()
    assert lacks(wanted, worker(**{field: 15})) == [f"hardware.{field}"]


def test_a_mismatch_reads_as_a_sentence_with_units():
    assert text(need(hardware={"gpu_memory_gb": 24.0}), worker(gpu_memory_gb=8)) == "needs 24 GB of GPU memory, 8 here"
    assert text(need(hardware={"ram_gb": 1.5}), worker()) == "needs 1.5 GB of memory, 0 here"
    assert text(need(hardware={"cpu_cores": 4}), worker(cpu_cores=2)) == "needs 4 CPU cores, 2 here"


def test_lesson_the_gpu_model_is_not_ignored():
    wanted = need(hardware={"gpu_model": "RTX 4090"})
    assert match(wanted, worker(gpu_model="NVIDIA GeForce rtx 4090 Ti")) == ()
    assert text(wanted, worker(gpu_model="NVIDIA A40")) == "needs a GPU named like rtx 4090, NVIDIA A40 here"
    assert text(wanted, worker()) == "needs a GPU named like rtx 4090, none here"


def test_labels_must_be_equal():
    wanted = need(labels={"zone": "eu"})
    assert match(wanted, worker(labels={"zone": "eu", "rack": "7"})) == ()
    assert text(wanted, worker(labels={"zone": "us"})) == "needs the label zone=eu, us here"
    assert text(wanted, worker()) == "needs the label zone=eu, not set here"


# --- custom ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found", "fits"),
    [
        (["a", "b"], ["b", "c", "a"], True),
        (["a", "d"], ["a", "b"], False),
        (["a"], "a", False),
        (["a"], None, False),
        ([1, 2.0], [2, 1.0], True),
        ([{"x": 1, "y": 2}], [{"y": 2.0, "x": 1}], True),
        ([True], [1], False),
        ("a", ["a", "b"], True),
        ("c", ["a", "b"], False),
        (8, [16], False),
        (8, [8.0], True),
        (8, 16, True),
        (8, 8.0, True),
        (8, 7.9, False),
        (1, True, False),
        (True, 1, False),
        (8, "16", False),
        ("a", "a", True),
        ("a", "A", False),
        (True, True, True),
        (True, False, False),
        (False, False, True),
        (False, None, False),
        ({"b": 1}, {"b": 2}, True),
        ({"b": 3}, {"b": 2}, False),
        ({"b": {"c": "x"}, "d": 1}, {"b": {"c": "x"}, "d": 1, "e": 0}, True),
        ({"b": 1}, 1, False),
        (1, {"b": 1}, False),
    ],
)
def test_custom_requirements_compare_by_their_kind(wanted, found, fits):
    assert (match(need(custom={"a": wanted}), worker(custom={"a": found})) == ()) is fits


def test_nested_objects_and_dotted_keys_are_two_spellings_of_one_path():
    nested, dotted = {"cuda": {"version": 12}}, {"cuda.version": 12}
    for wanted in (nested, dotted):
        for have in (nested, dotted):
            assert match(need(custom=wanted), worker(custom=have)) == ()
    assert lacks(need(custom=dotted), worker(custom={"cuda": {"version": 11}})) == ["custom.cuda.version"]


def test_a_missing_custom_capability_is_a_mismatch():
    assert text(need(custom={"x": "a"}), worker()) == 'needs x "a", not set here'
    assert text(need(custom={"x": 2}), worker(custom={"x": 1})) == "needs x at least 2, 1 here"


def test_all_mismatches_are_listed_not_only_the_first():
    wanted = need(
        "ollama", models=["m"], hardware={"cpu_cores": 8, "gpu_model": "A40"}, labels={"z": "1"}, custom={"k": True}
    )
    assert lacks(wanted, worker()) == [
        "service",
        "models",
        "hardware.cpu_cores",
        "hardware.gpu_model",
        "labels.z",
        "custom.k",
    ]


# --- faults of the matching before this one --------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", ["all", None, [], {}, ["all"], [None], {"deeper": "all"}, {"deeper": {"yet": []}}])
def test_a_custom_requirement_that_asks_for_nothing_matches_a_worker_without_the_key(nothing):
    assert match(need(custom={"component": nothing}), worker()) == ()


def test_what_asks_for_nothing_within_a_list_does_not_spoil_the_rest():
    assert lacks(need(custom={"tags": ["all", "x"]}), worker(custom={"tags": ["y"]})) == ["custom.tags"]
    assert match(need(custom={"tags": ["all", "x"]}), worker(custom={"tags": ["x"]})) == ()


def test_models_labels_and_gpu_names_of_all_ask_for_nothing():
    wanted = need(models=["all"], labels={"zone": "all"}, hardware={"gpu_model": "ALL"})
    assert match(wanted, worker()) == ()


def test_an_empty_gpu_name_asks_for_nothing():
    assert match(need(hardware={"gpu_model": " "}), worker()) == ()


def test_null_hardware_asks_for_nothing():
    assert match(need(hardware={"gpu_memory_gb": None, "ram_gb": 0}), worker()) == ()


@pytest.mark.parametrize("key", ["timeout_minutes", "quality_level", "service_type", "negative_requirements"])
def test_an_unknown_requirement_is_refused_and_neither_ignored_nor_taken_for_a_capability(key):
    with pytest.raises(InvalidInput) as refused:
        decode(encode({key: 1}), Requirements)
    assert refused.value.field == key


def test_lesson_malformed_requirements_are_refused_and_not_taken_for_none():
    with pytest.raises(InvalidInput) as refused:
        decode(b'{"job_id": "j", "service_required": "s", "requirements": "{oops"}', JobSpec)
    assert refused.value.field == "requirements"


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"models": ["a", "b:latest"]}, {"models": ["b", "a", "a"]}),
        ({"hardware": {"gpu_memory_gb": 8}}, {"hardware": {"gpu_memory_gb": 8.0, "cpu_cores": 0}}),
        ({"hardware": {"gpu_model": "A40"}}, {"hardware": {"gpu_model": " a40 "}}),
        ({"labels": {"a": "1", "b": "2"}}, {"labels": {"b": "2", "c": "all", "a": "1"}}),
        ({"custom": {"a": {"b": 8}, "c": ["y", "x"]}}, {"custom": {"c": ["x", "y", "y"], "a.b": 8.0}}),
        ({}, {"custom": {"a": None, "b": [], "c": {}, "d": "all"}, "models": ["all"]}),
        ({"custom": {"n": 10**20}}, {"custom": {"n": 1e20}}),
    ],
)
def test_equal_needs_share_a_signature_however_they_are_spelled(one, other):
    assert signature(need(**one)) == signature(need(**other))
    assert normalised(need(**one)) == normalised(need(**other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"models": ["a"]}),
        ({"custom": {"a": 1}}, {"custom": {"a": True}}),
        ({"custom": {"a": 1}}, {"custom": {"a": "1"}}),
        ({"custom": {"a": "x"}}, {"custom": {"a": ["x"]}}),
        ({"labels": {"a": "1"}}, {"custom": {"a": "1"}}),
        ({"hardware": {"ram_gb": 8}}, {"hardware": {"gpu_memory_gb": 8}}),
    ],
)
def test_different_needs_have_different_signatures(one, other):
    assert signature(need(**one)) != signature(need(**other))


def test_the_service_is_part_of_the_signature():
    assert signature(need("a")) != signature(need("b"))


def test_signatures_stay_as_they_are_because_stores_keep_them():
    wanted = need(models=["m"], hardware={"gpu_memory_gb": 24}, labels={"zone": "eu"}, custom={"a": {"b": 1}})
    assert signature(wanted) == "3d3fe6a67f0657f0"
    assert class_id(worker(models=("m",), gpu_memory_gb=24)) == "c4417542f73e1217f"


def test_equally_able_workers_share_a_class():
    one = worker(
        services=("b", "a"),
        models=("m:latest", "n"),
        gpu_memory_gb=24.0,
        gpu_model="NVIDIA A40",
        labels={"x": "1", "y": "2"},
        custom={"a": {"b": [2, 1.0]}},
    )
    other = worker(
        services=("a", "b", "b"),
        models=("n", "m"),
        gpu_memory_gb=24,
        gpu_model="nvidia a40",
        labels={"y": "2", "x": "1"},
        custom={"a.b": [1, 2]},
    )
    assert class_id(one) == class_id(other)
    assert class_id(one) != class_id(worker())
    assert class_id(one).startswith("c")
    assert len(class_id(one)) == 17


def test_customers_that_a_worker_treats_unlike_others_are_known_to_it():
    picky = Capability(customers=CustomerAccess(allow=("acme",), deny=("evil",)))
    assert special_customers(picky) == {"acme", "evil"}
    assert admits(picky, "acme")
    assert not admits(picky, "evil")
    assert not special_customers(Capability())
