import msgspec
import pytest

from muster.access.allowance import ANYTHING, PATTERNS_MAX, Allowance, check_allowance
from muster.access.roles import Role
from muster.errors import InvalidInput, ModelNotFound


def test_without_a_list_all_models_are_allowed() -> None:
    assert ANYTHING.allows("whatever")


@pytest.mark.parametrize("model", ["llama3", "llama3:latest", "qwen3:8b", "qwen3"])
def test_names_and_globs_allow_models_with_and_without_the_default_tag(model: str) -> None:
    assert Allowance(models=("llama3:latest", "qwen*")).allows(model)


@pytest.mark.parametrize("model", ["llama3:70b", "LLAMA3", "mistral", ""])
def test_what_is_not_listed_is_not_allowed(model: str) -> None:
    allowance = Allowance(models=("llama3", "qwen*"))

    assert not allowance.allows(model)
    with pytest.raises(ModelNotFound, match="may not use it") as caught:
        allowance.check_allows(["llama3", model])
    assert caught.value.field == "model"
    allowance.check_allows(["llama3", "qwen3"])


def test_a_name_longer_than_any_pattern_may_still_fit_one() -> None:
    allowance = Allowance(models=("llama*",))

    assert allowance.allows("llama" * 100)
    assert not allowance.allows("mistral" * 100)


def test_who_may_not_use_all_models_hears_of_no_others() -> None:
    problem = ModelNotFound("no worker has a model 'x'. There are: a, b", field="model")
    assert ANYTHING.as_told(problem, "x") is problem
    told = Allowance(models=("x*",)).as_told(problem, "x")
    with pytest.raises(ModelNotFound) as caught:
        Allowance(models=("y",)).check_allows(["x"])
    assert (told.message, told.field) == (caught.value.message, "model")


def test_what_makes_no_sense_is_refused_by_its_field() -> None:
    for allowance, field in (
        (Allowance(models=("",)), "allowance.models"),
        (Allowance(models=(" a",)), "allowance.models"),
        (Allowance(models=("a" * 201,)), "allowance.models"),
        (Allowance(models=("a",) * (PATTERNS_MAX + 1)), "allowance.models"),
        (Allowance(requests_per_min=0), "allowance.requests_per_min"),
        (Allowance(tokens_per_min=-1), "allowance.tokens_per_min"),
        (Allowance(tokens_per_day=10**16), "allowance.tokens_per_day"),
        (Allowance(tokens_per_month=0), "allowance.tokens_per_month"),
        (Allowance(weight=0), "allowance.weight"),
        (Allowance(weight=101), "allowance.weight"),
        (Allowance(priority=-1), "allowance.priority"),
        (Allowance(priority=101), "allowance.priority"),
    ):
        with pytest.raises(InvalidInput) as caught:
            check_allowance(allowance, Role.CLIENT)
        assert caught.value.field == field


def test_how_a_token_waits_is_bounded_at_both_ends() -> None:
    for allowance in (Allowance(weight=0.01, priority=0), Allowance(weight=100, priority=100)):
        check_allowance(allowance, Role.CLIENT)


def test_what_was_stored_before_there_were_weights_is_read_and_written_as_it_was() -> None:
    stored = b'{"models":["a"],"tokens_per_day":5}'
    allowance = msgspec.json.decode(stored, type=Allowance)
    assert (allowance.weight, allowance.priority) == (1.0, None)
    assert msgspec.json.encode(allowance) == stored


def test_only_who_may_ask_models_can_be_limited_in_it() -> None:
    check_allowance(Allowance(models=("a",), tokens_per_day=1), Role.OPERATOR)
    check_allowance(ANYTHING, Role.AGENT)
    with pytest.raises(InvalidInput, match="asks no models"):
        check_allowance(Allowance(tokens_per_day=1), Role.VIEWER)
