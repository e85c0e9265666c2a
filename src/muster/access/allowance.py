"""What a token may use: which models, how often, how much, and how much it matters where others wait, too."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache

from msgspec import Struct

from muster.access.roles import GRANTS, Right, Role
from muster.domain.model import canonical_model_name
from muster.errors import InvalidInput, ModelNotFound

PATTERNS_MAX = 100
PATTERN_CHARS_MAX = 200
REQUESTS_MAX = 10_000_000
TOKENS_MAX = 10**15
WEIGHT_MIN, WEIGHT_MAX = 0.01, 100.0
PRIORITY_MAX = 100
_VERDICTS_MAX = 1024


class Allowance(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`models` are names or globs, none: all of them. Of the limits None is none; days and months are UTC's.

    `weight` is the share of turns in a line of those who matter as much. `priority` is what the token's requests have
    that do not say, and the most that they, and its jobs, may have; None: as the role has it.
    """

    models: tuple[str, ...] = ()
    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    weight: float = 1.0
    priority: int | None = None

    def allows(self, model: str) -> bool:
        if not self.models:
            return True
        # Names that are longer than a pattern are invented, and not worth being remembered.
        judge = _is_among if len(model) <= PATTERN_CHARS_MAX else _is_among.__wrapped__
        return judge(model, self.models)

    def check_allows(self, models: Iterable[str]) -> None:
        """Raise ModelNotFound; in the same words whether there is such a model or not."""
        for model in models:
            if not self.allows(model):
                raise _not_there(model)

    def as_told(self, problem: ModelNotFound, model: str) -> ModelNotFound:
        """Name no other models to who may not use all of them."""
        return _not_there(model) if self.models else problem


@lru_cache(_VERDICTS_MAX)
def _is_among(model: str, patterns: tuple[str, ...]) -> bool:
    name = canonical_model_name(model)
    return any(fnmatchcase(name, canonical_model_name(pattern)) for pattern in patterns)


def _not_there(model: str) -> ModelNotFound:
    return ModelNotFound(f"the model {model!r} does not exist, or this token may not use it", field="model")


ANYTHING = Allowance()


def check_allowance(allowance: Allowance, role: Role) -> None:
    """Raise InvalidInput that names the field."""
    if allowance != ANYTHING and Right.CHAT not in GRANTS[role]:
        raise InvalidInput(f"the role {role} asks no models, so there is nothing to allow", field="allowance")
    if len(allowance.models) > PATTERNS_MAX:
        raise InvalidInput(f"at most {PATTERNS_MAX} models or globs", field="allowance.models")
    for pattern in allowance.models:
        if not 0 < len(pattern.strip()) == len(pattern) <= PATTERN_CHARS_MAX:
            raise InvalidInput(
                f"a model's name or glob has 1 to {PATTERN_CHARS_MAX} characters and no blanks around it, "
                f"got {pattern[:PATTERN_CHARS_MAX]!r}",
                field="allowance.models",
            )
    _within(allowance.requests_per_min, REQUESTS_MAX, "requests_per_min")
    _within(allowance.tokens_per_min, TOKENS_MAX, "tokens_per_min")
    _within(allowance.tokens_per_day, TOKENS_MAX, "tokens_per_day")
    _within(allowance.tokens_per_month, TOKENS_MAX, "tokens_per_month")
    if not WEIGHT_MIN <= allowance.weight <= WEIGHT_MAX:
        raise InvalidInput(
            f"weight must be {WEIGHT_MIN:g} to {WEIGHT_MAX:g}, got {allowance.weight:g}", field="allowance.weight"
        )
    if allowance.priority is not None and not 0 <= allowance.priority <= PRIORITY_MAX:
        raise InvalidInput(
            f"priority must be 0 to {PRIORITY_MAX}, or null for that of the role, got {allowance.priority}",
            field="allowance.priority",
        )


def _within(value: int | None, most: int, field: str) -> None:
    if value is not None and not 0 < value <= most:
        raise InvalidInput(
            f"{field} must be 1 to {most}, or null for no limit, got {value}", field=f"allowance.{field}"
        )
