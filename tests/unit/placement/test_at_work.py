from muster.domain.service import Dialect
from muster.placement.at_work import engine_of
from tests.unit.placement.makers import candidate


def test_a_job_keeps_the_engine_at_work_that_has_its_models_and_the_fewest_jobs() -> None:
    one, two, three = (candidate("n", *models, key=f"n/{name}") for name, models in ENGINES)
    engines = (one, two, three)

    assert engine_of(one.connector, ["b"], engines, {}) is two
    assert engine_of(one.connector, ["a"], engines, {}) is one
    assert engine_of(one.connector, ["a"], engines, {one.key: 1}) is three
    assert engine_of(one.connector, [], engines, {one.key: 1}) is two
    assert engine_of("openai", ["b:latest"], engines, {}) is two


def test_what_no_engine_runs_keeps_none_at_work() -> None:
    engine = candidate("n", "m", dialects=(Dialect.OLLAMA,))

    assert engine_of("simulation", ["m"], (engine,), {}) is None
    assert engine_of("openai", ["m"], (engine,), {}) is None
    assert engine_of(engine.connector, ["m"], (), {}) is None


ENGINES = (("s1", ("a",)), ("s2", ("b",)), ("s3", ("a",)))
