"""Which engine a job keeps at work: the one that its worker asks, chosen here as it chooses there."""

from collections.abc import Iterable, Mapping

from muster.domain.model import canonical_model_name
from muster.domain.service import Dialect
from muster.placement.candidate import Candidate

_ANY_OPENAI = "openai"  # the kind of job that every server runs that speaks this


def engine_of(
    kind: str, models: Iterable[str], engines: Iterable[Candidate], in_use: Mapping[str, int]
) -> Candidate | None:
    """Return the engine of this kind that has most of the models, then the one with fewest jobs; None: no engine's job.

    `engines` are those beside the worker, `in_use` how many jobs each has, by key.
    """
    wanted = {canonical_model_name(name) for name in models}
    fit = [engine for engine in engines if _runs(engine, kind)]
    return min(fit, key=lambda engine: (-len(wanted & engine.models.keys()), in_use.get(engine.key, 0)), default=None)


def _runs(engine: Candidate, kind: str) -> bool:
    return kind == engine.connector or (kind == _ANY_OPENAI and Dialect.OPENAI in engine.dialects)
