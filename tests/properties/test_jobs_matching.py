"""Needs in all their spellings, and workers that grow."""

import random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.capability import Capability
from muster.domain.job import Hardware, Need, Requirements
from muster.jobs.matching import class_id, match, normalised, signature

# Few words and small numbers, so that needs and workers meet.
words = st.sampled_from(["a", "b", "c", "all", "A"])
numbers = st.integers(-2, 4) | st.sampled_from([0.5, 1.5, 2.0**60])
scalars = words | numbers | st.booleans() | st.none()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=6
)
customs = st.dictionaries(words, values, max_size=4)
labels = st.dictionaries(words, words, max_size=3)
models = st.lists(words, max_size=3).map(tuple)
bounds = st.none() | st.integers(0, 4) | st.sampled_from([0.5, 2.0])

needs = st.builds(
    Need,
    service=words,
    requirements=st.builds(
        Requirements,
        models=models,
        hardware=st.builds(
            Hardware, gpu_memory_gb=bounds, cpu_cores=st.none() | st.integers(0, 4), ram_gb=bounds, gpu_model=words
        ),
        labels=labels,
        custom=customs,
    ),
)
workers = st.builds(
    Capability,
    services=models,
    models=models,
    gpu_memory_gb=st.integers(0, 4),
    gpu_model=st.none() | words,
    cpu_cores=st.integers(0, 4),
    ram_gb=st.integers(0, 4),
    labels=labels,
    custom=customs,
)


class Speller:
    """Says the same in other words."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def need(self, need: Need) -> Need:
        asked = need.requirements
        names = [self.chance.choice([name, f"{name}:latest"]) for name in asked.models]
        return Need(
            service=need.service,
            requirements=Requirements(
                models=tuple(self._shuffled([*names, *names[:1], "all"])),
                hardware=asked.hardware,
                labels=dict(self._shuffled([*asked.labels.items(), ("more", "all")])),
                custom=self._object(asked.custom | {"none": self.chance.choice([None, "all", [], {}, {"x": [None]}])}),
            ),
        )

    def _object(self, value: dict[str, Any]) -> dict[str, Any]:
        items: list[tuple[str, Any]] = []
        for key, item in value.items():
            if isinstance(item, dict) and self.chance.random() < 0.5:
                items += [(f"{key}.{inner}", deeper) for inner, deeper in self._object(item).items()]
            else:
                items.append((key, self._object(item) if isinstance(item, dict) else self._value(item)))
        return dict(self._shuffled(items))

    def _value(self, value: Any) -> Any:
        if isinstance(value, list):
            said = [self._value(item) for item in value]
            return self._shuffled([*said, *said[:1], None])
        if isinstance(value, dict):
            return dict(self._shuffled([(key, self._value(item)) for key, item in value.items()]))
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    def _shuffled(self, items: list[Any]) -> list[Any]:
        return self.chance.sample(items, len(items))


def text(need: Need) -> bytes:
    """Python holds 1 and True for equal; JSON does not."""
    return msgspec.json.encode(need, order="sorted")


@given(needs, st.randoms(use_true_random=False))
def test_another_spelling_of_a_need_changes_neither_its_signature_nor_who_can_run_it(need, chance):
    said = Speller(chance).need(need)
    assert signature(said) == signature(need)
    assert text(normalised(said)) == text(normalised(need))


@given(needs, needs)
def test_signatures_are_equal_just_when_the_normal_forms_are(one, other):
    assert (signature(one) == signature(other)) == (text(normalised(one)) == text(normalised(other)))


@given(needs)
def test_a_normal_form_is_its_own_normal_form(need):
    assert text(normalised(normalised(need))) == text(normalised(need))


@given(needs, workers, workers)
def test_workers_of_one_class_are_told_the_same(need, one, other):
    if class_id(one) == class_id(other):
        lacks = [[mismatch.requirement for mismatch in match(need, worker)] for worker in (one, other)]
        assert lacks[0] == lacks[1]


def grown(value: Any, chance: random.Random) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return [*value, chance.choice(["a", 3, None])]
    if isinstance(value, dict):
        return {key: grown(item, chance) for key, item in value.items()} | {f"new{chance.randrange(9)}": 1}
    return value + chance.choice([0, 0.5, 1])


@given(needs, workers, st.randoms(use_true_random=False))
def test_a_worker_that_grows_never_loses_a_match(need, worker, chance):
    bigger = Capability(
        services=(*worker.services, "new"),
        models=(*worker.models, "new"),
        gpu_memory_gb=worker.gpu_memory_gb + chance.random(),
        gpu_model=worker.gpu_model and f"NVIDIA {worker.gpu_model} Ti",
        cpu_cores=worker.cpu_cores + chance.randrange(2),
        ram_gb=worker.ram_gb + chance.random(),
        labels=worker.labels | {"new": "x"},
        custom=grown(worker.custom, chance),
    )
    before = {mismatch.requirement for mismatch in match(need, worker)}
    after = {mismatch.requirement for mismatch in match(need, bigger)}
    assert after <= before


@given(needs)
def test_a_worker_made_to_measure_runs_its_job(need):
    asked = normalised(need).requirements
    hardware = asked.hardware
    made = Capability(
        services=(need.service,),
        models=asked.models,
        gpu_memory_gb=hardware.gpu_memory_gb or 0,
        gpu_model=hardware.gpu_model,
        cpu_cores=hardware.cpu_cores or 0,
        ram_gb=hardware.ram_gb or 0,
        labels=asked.labels,
        custom=asked.custom,
    )
    assert match(need, made) == ()
