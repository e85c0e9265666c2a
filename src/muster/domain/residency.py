"""What a node wants of the models in its memory: which stay, which go when nobody uses them, how many there may be."""

from typing import Annotated

from msgspec import Meta, Struct

from muster.domain.model import canonical_model_name


class ModelRule(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What holds for one model. Pinned: loaded from the start, and never unloaded to make room."""

    name: Annotated[str, Meta(min_length=1, max_length=2048)]
    pinned: bool = False
    idle_unload_s: Annotated[float, Meta(gt=0)] | None = None  # instead of the node's
    memory_mb: Annotated[int, Meta(gt=0)] | None = None  # what it takes, where that is known better than by its size


class ModelPolicy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node that has one lets its models be loaded and unloaded by command; without one its engines see to it."""

    idle_unload_s: float | None = None  # None: what is loaded stays
    resident_max: int | None = None  # in one GPU, or in the node where it has none
    rules: tuple[ModelRule, ...] = ()
    share_gpu: tuple[str, ...] = ()  # services, or connectors, of which one at a time has the memory of a GPU

    def rule(self, model: str) -> ModelRule:
        wanted = canonical_model_name(model)
        found = (rule for rule in self.rules if canonical_model_name(rule.name) == wanted)
        return next(found, ModelRule(name=wanted))

    def idle_s(self, model: str) -> float | None:
        """Return after how long without use it is unloaded; None: never."""
        rule = self.rule(model)
        if rule.pinned:
            return None
        return self.idle_unload_s if rule.idle_unload_s is None else rule.idle_unload_s

    def pinned(self) -> tuple[str, ...]:
        return tuple(rule.name for rule in self.rules if rule.pinned)
