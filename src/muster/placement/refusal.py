"""What a caller is told when nobody can serve it."""

import difflib
from collections.abc import Sequence
from typing import Any

from muster.domain.model import canonical_model_name
from muster.errors import ModelNotFound, MusterError, NoWorker, PoolNotFound, PoolNotReady
from muster.placement.filters import (
    Rejection,
    capability,
    connected,
    draining,
    health,
    late,
    model,
    pool,
    service,
)
from muster.placement.wish import Wish

_NAMED_MAX = 10
_NEAR_MAX = 3
_WHAT_PASSES = frozenset(rule.__name__ for rule in (connected, health, late, draining, service))
_WHAT_THE_MODEL_LACKS = frozenset({model.__name__, capability.__name__})


def no_candidate_error(wish: Wish, rejections: Sequence[Rejection]) -> MusterError:
    """Return ModelNotFound when workers are there and none has the model for this, else what is said of a pinned pool.

    Without a pin it is NoWorker with all reasons.
    """
    if wish.model is not None and rejections and all(entry.filter in _WHAT_THE_MODEL_LACKS for entry in rejections):
        return _model_not_found(wish.model, wish.capability, rejections)
    if not rejections:
        return NoWorker("no worker is in the fleet yet: start an agent, or wait until it has registered")
    if wish.pool is not None and (refusal := _of_pool(wish, wish.pool, rejections)) is not None:
        return refusal
    with_model = [entry for entry in rejections if entry.filter != model.__name__]
    reasons = [f"{entry.key} {entry.reason}" for entry in with_model]
    what = wish.model or wish.capability
    data: dict[str, Any] = {"reasons": reasons[:_NAMED_MAX]}
    return NoWorker(f"no worker can serve {what} now: {_listed(reasons, '; ')}", **data)


def _of_pool(wish: Wish, name: str, rejections: Sequence[Rejection]) -> MusterError | None:
    """Return why nothing in that pool will do; None when it is not for the pool's sake."""
    inside = [entry for entry in rejections if pool(entry.candidate, wish) is None]
    if not inside:
        return PoolNotFound(f"no worker is in a pool {name!r}; GET /v2/nodes and /api/v1/nodes list them", field="pool")
    passing = [f"{entry.key} {entry.reason}" for entry in inside if entry.filter in _WHAT_PASSES]
    if not passing:
        return None
    return PoolNotReady(f"the pool {name!r} takes no work now: {_listed(passing, '; ')}", reasons=passing[:_NAMED_MAX])


def _model_not_found(wished: str, use: str, rejections: Sequence[Rejection]) -> ModelNotFound:
    offered = sorted(
        {name for entry in rejections for name, known in entry.candidate.models.items() if use in known.capabilities}
    )
    has_it = any(entry.filter != model.__name__ for entry in rejections)
    text = f"the model {wished!r} does not offer {use}" if has_it else f"no worker has a model {wished!r}"
    if not offered:
        return ModelNotFound(f"{text}, and none that offers {use} is there", field="model")
    return ModelNotFound(text + what_there_is(wished, offered), field="model")


def what_there_is(wished: str, names: Sequence[str]) -> str:
    """Return how a sentence goes on that says that there is no such model: with those near it, and with all."""
    near = difflib.get_close_matches(canonical_model_name(wished), names, n=_NEAR_MAX)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    return f"{hint} There are: {_listed(names, ', ')}" if names else "; there is none yet"


def _listed(texts: Sequence[str], separator: str) -> str:
    more = len(texts) - _NAMED_MAX
    return separator.join(texts[:_NAMED_MAX]) + (f"{separator}and {more} more" if more > 0 else "")
