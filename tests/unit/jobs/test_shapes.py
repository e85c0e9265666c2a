"""Requirements in every shape that clients send, and the faults of the queue that read them before."""

from typing import Any

import pytest

from muster.domain.capability import Capability, CustomerAccess
from muster.domain.job import Conditions, Hardware, Need, Requirements
from muster.errors import InvalidInput
from muster.jobs.matching import match
from muster.jobs.shapes import read_requirements

BOTH = Requirements(
    models=("sdxl",),
    hardware=Hardware(gpu_memory_gb=16),
    custom={"feature": ["a"]},
    negative=Conditions(custom={"slow": True}),
    isolation="strict",
)


def read(given: Any, service: str = "comfyui") -> Requirements:
    return read_requirements(given, service).requirements


def runs(given: Any, customer: str | None = None, **worker: Any) -> bool:
    need = Need(service="comfyui", requirements=read(given))
    return not match(need, Capability(**({"services": ("comfyui",)} | worker)), customer)


@pytest.mark.parametrize(
    "given",
    [
        {
            "models": ["sdxl"],
            "hardware": {"gpu_memory_gb": 16},
            "custom": {"feature": ["a"]},
            "negative": {"custom": {"slow": True}},
            "isolation": "strict",
        },
        {
            "positive_requirements": {"models": ["sdxl"], "hardware": {"gpu_memory_gb": 16}, "feature": ["a"]},
            "negative_requirements": {"slow": True},
            "customer_isolation": "strict",
        },
        {
            "positive_requirements": {
                "models": "sdxl",
                "hardware": {"gpu_memory_gb": 16, "cpu_cores": "all"},
                "feature": ["a"],
                "customer_isolation": "strict",
                "service_type": "comfyui",
            },
            "negative_requirements": {"slow": True},
        },
    ],
)
def test_all_shapes_say_the_same(given):
    assert read(given) == BOTH


@pytest.mark.parametrize(
    "given",
    [None, {}, [], "all", {"models": "all"}, {"models": []}, {"hardware": None}, {"hardware": {"ram_gb": "all"}},
     {"positive_requirements": None}, {"negative_requirements": []}, {"customer_isolation": "none"},
     {"service_type": "comfyui"}, {"service_type": "all"}],
)  # fmt: skip
def test_what_asks_for_nothing_is_read_as_nothing(given):
    assert read(given) == Requirements()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("{broken json", "requirements"),
        ("", "requirements"),
        (["a"], "requirements"),
        (7, "requirements"),
        ({"models": {"a": 1}}, "requirements.models"),
        ({"models": [1]}, "requirements.models"),
        ({"hardware": "16"}, "requirements.hardware"),
        ({"hardware": {"gpu_memory_gb": "lots"}}, "requirements.hardware.gpu_memory_gb"),
        ({"hardware": {"vram": 16}}, "requirements.hardware.vram"),
        ({"labels": {"zone": 1}}, "requirements.labels.zone"),
        ({"customer_isolation": "most"}, "requirements.customer_isolation"),
        ({"positive_requirements": "x"}, "requirements.positive_requirements"),
        ({"positive_requirements": {"a": 1}, "a": 2}, "requirements.a"),
        ({"custom": {"a": 1}, "a": 2}, "requirements.a"),
        ({"negative_requirements": "x"}, "requirements.negative_requirements"),
        ({"negative_requirements": {}, "negative": {}}, "requirements.negative"),
        ({"service_type": "ollama"}, "requirements.service_type"),
        ({"timeout_minutes": "soon"}, "requirements.timeout_minutes"),
        ({"timeout_minutes": 0}, "requirements.timeout_minutes"),
    ],
)
def test_lesson_malformed_requirements_are_refused_and_never_run_anywhere(given, field):
    with pytest.raises(InvalidInput) as caught:
        read(given)
    assert caught.value.field == field
    assert field in caught.value.message


def test_lesson_the_time_limit_of_older_clients_is_enforced():
    asked = read_requirements({"timeout_minutes": 1.5}, "comfyui")
    assert (asked.timeout_s, asked.requirements) == (90, Requirements())


def test_lesson_negative_requirements_alone_match_workers_without_them():
    avoids_slow = {"negative_requirements": {"slow": True}}
    assert runs(avoids_slow)
    assert runs(avoids_slow, custom={"slow": False})
    assert not runs(avoids_slow, custom={"slow": True})


def test_lesson_a_negative_bound_refuses_whoever_would_satisfy_it():
    small_only = {"negative_requirements": {"hardware": {"gpu_memory_gb": 16}}}
    assert runs(small_only, gpu_memory_gb=8)
    assert not runs(small_only, gpu_memory_gb=16)
    assert not runs(small_only, gpu_memory_gb=24)


def test_every_condition_of_the_negative_refuses_on_its_own():
    unwanted = {"negative": {"models": ["a", "b"], "labels": {"zone": "eu"}}}
    assert runs(unwanted)
    assert not runs(unwanted, models=("b",))
    assert not runs(unwanted, labels={"zone": "eu"})


def test_lesson_words_for_nothing_and_empty_values_match_every_worker():
    assert runs({"component": "all", "workflow": "all", "nodes": [], "extra": None})
    assert runs({"models": ["a", "b"]}, models=("all",))


def test_lesson_a_customer_on_a_deny_list_is_refused_whatever_the_job_says():
    denies = CustomerAccess(deny=("umbrella",))
    assert not runs({}, "umbrella", customers=denies)
    assert runs({}, "acme", customers=denies)
    assert runs({}, None, customers=denies)


def test_an_allow_list_keeps_a_worker_for_its_customers():
    kept = CustomerAccess(allow=("acme",), deny=("umbrella",))
    assert runs({}, "acme", customers=kept)
    assert not runs({}, "umbrella", customers=kept)
    assert not runs({}, "globex", customers=kept)
    assert not runs({}, None, customers=kept)


def test_strict_isolation_needs_a_worker_that_keeps_customers_apart():
    assert not runs({"customer_isolation": "strict"}, "acme")
    assert runs({"customer_isolation": "strict"}, "acme", customers=CustomerAccess(strict=True))
    assert runs({}, "acme", customers=CustomerAccess(strict=True))
    refusal = match(Need(service="comfyui", requirements=BOTH), Capability(services=("comfyui",)))
    assert "needs strict isolation of customers, not offered here" in [mismatch.text for mismatch in refusal]


def test_what_must_not_be_there_is_said_in_words():
    need = Need(service="s", requirements=read({"negative": {"models": ["a"], "hardware": {"ram_gb": 4}, "x": 1}}, "s"))
    able = Capability(services=("s",), models=("a",), ram_gb=8, custom={"x": 2})
    assert [(mismatch.requirement, mismatch.text) for mismatch in match(need, able)] == [
        ("negative.models", "must not have the model a"),
        ("negative.hardware.ram_gb", "must not have 4 GB of memory, 8 here"),
        ("negative.custom.x", "must not have x at least 1, 2 here"),
    ]
