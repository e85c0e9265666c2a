"""Who can run what, and if not, what is missing.

Needs and capabilities are brought into one normal form first, so that equal ones get equal names (`signature`,
`class_id`) and the store asks `match` once per pair of them, never per claim. "all", null, [] and {} ask for nothing,
and nested objects and dotted keys are two spellings of one path. The customer is no part of a need: there are many, and
most are treated alike.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from muster.domain.capability import Capability, CustomerAccess
from muster.domain.job import Conditions, Hardware, Need, Requirements
from muster.domain.model import canonical_model_name

_T = TypeVar("_T")

_encode = msgspec.json.Encoder().encode

_ALL = "all"
_ASKS_NOTHING: tuple[Any, ...] = (None, _ALL, [], {})
_DIGITS = 16
_CACHED_NEEDS = 1024

_BOUNDS = (("gpu_memory_gb", "GB of GPU memory"), ("cpu_cores", "CPU cores"), ("ram_gb", "GB of memory"))


class Mismatch(Struct, frozen=True, kw_only=True):
    """One thing that keeps a worker from a job. `requirement` is its path: `hardware.gpu_memory_gb`, `labels.zone`.

    `remedy` is what the worker would have to do.
    """

    requirement: str
    wanted: Any
    found: Any
    text: str
    remedy: str


def signature(need: Need) -> str:
    """Return the name that equal needs share, however they are spelled."""
    return _digest_and_normal(_encode(need))[0]


def normalised(need: Need) -> Need:
    """Return the need without what asks for nothing, the rest spelled in one way."""
    return _digest_and_normal(_encode(need))[1]


@lru_cache(maxsize=_CACHED_NEEDS)  # of a million jobs nearly all share a few needs
def _digest_and_normal(encoded: bytes) -> tuple[str, Need]:
    need = msgspec.json.decode(encoded, type=Need)
    asked = need.requirements
    positive = _normal_conditions(asked)
    negative = _normal_conditions(asked.negative or Conditions())
    normal = Need(
        service=need.service,
        requirements=Requirements(
            models=positive.models,
            hardware=positive.hardware,
            labels=positive.labels,
            custom=positive.custom,
            negative=negative if negative != Conditions() else None,
            isolation=asked.isolation,
        ),
    )
    return _digest(normal), normal


def _normal_conditions(asked: Conditions) -> Conditions:
    hardware = asked.hardware
    return Conditions(
        models=tuple(sorted({canonical_model_name(name) for name in asked.models} - {_ALL})),
        hardware=Hardware(
            gpu_memory_gb=_number(hardware.gpu_memory_gb or 0) or None,  # a lower bound of 0 is none
            cpu_cores=hardware.cpu_cores or None,
            ram_gb=_number(hardware.ram_gb or 0) or None,
            gpu_model=_folded(hardware.gpu_model),
        ),
        labels={key: value for key, value in asked.labels.items() if value != _ALL},
        custom=dict(leaves(_asked(asked.custom) or {})),
    )


def _or_default(value: _T, default: _T) -> _T:
    """Return the very default where the value equals it: only that one is left out when it is encoded."""
    return default if value == default else value


def class_id(capability: Capability) -> str:
    """Return the name that equally able workers share."""
    able = Capability(
        services=tuple(sorted(set(capability.services))),
        models=tuple(sorted({canonical_model_name(name) for name in capability.models})),
        gpu_memory_gb=_number(capability.gpu_memory_gb),
        gpu_model=_folded(capability.gpu_model),
        cpu_cores=capability.cpu_cores,
        ram_gb=_number(capability.ram_gb),
        labels=capability.labels,
        custom=dict(leaves(capability.custom)),
        customers=_or_default(
            CustomerAccess(
                allow=tuple(sorted(set(capability.customers.allow))),
                deny=tuple(sorted(set(capability.customers.deny))),
                strict=capability.customers.strict,
            ),
            Capability().customers,
        ),
    )
    return "c" + _digest(able)


def match(need: Need, capability: Capability, customer: str | None = None) -> tuple[Mismatch, ...]:
    """Return everything that keeps the worker from a job of this customer; nothing: it can run it."""
    asked = normalised(need).requirements
    return (
        *_service(need.service, capability),
        *(check.as_lack() for check in _checks(asked, capability) if not check.met),
        *(check.as_excess() for check in _checks(asked.negative or Conditions(), capability) if check.met),
        *_isolation(asked, capability),
        *_customer(customer, capability),
    )


def admits(capability: Capability, customer: str | None) -> bool:
    """Tell whether the worker takes jobs of this customer, whatever they need; None: jobs that name nobody."""
    return not any(_customer(customer, capability))


def special_customers(capability: Capability) -> frozenset[str]:
    """Return the customers that the worker treats unlike all others."""
    return frozenset((*capability.customers.allow, *capability.customers.deny))


def leaves(custom: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, normal value) in an order that does not depend on how the object was written."""
    for key, value in sorted(custom.items()):
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, _normal(value)


def _service(wanted: str, capability: Capability) -> Iterator[Mismatch]:
    if wanted not in capability.services:
        found = ", ".join(capability.services) or "none"
        text = f"needs the service {wanted}, offers {found}"
        remedy = f"offer the service {wanted}"
        yield Mismatch(requirement="service", wanted=wanted, found=capability.services, text=text, remedy=remedy)


class _Check(Struct, frozen=True):
    """One condition, held against one worker. `what` is the condition in words, `here` what there is instead."""

    path: str
    wanted: Any
    found: Any
    met: bool
    what: str
    here: str | None = None

    def as_lack(self) -> Mismatch:
        text = f"lacks {self.what}" if self.here is None else f"needs {self.what}, {self.here} here"
        return self._mismatch(self.path, text, f"have {self.what}")

    def as_excess(self) -> Mismatch:
        text = f"must not have {self.what}{'' if self.here is None else f', {self.here} here'}"
        return self._mismatch(f"negative.{self.path}", text, f"not have {self.what}")

    def _mismatch(self, requirement: str, text: str, remedy: str) -> Mismatch:
        return Mismatch(requirement=requirement, wanted=self.wanted, found=self.found, text=text, remedy=remedy)


def _checks(wanted: Conditions, capability: Capability) -> Iterator[_Check]:
    yield from _models(wanted.models, capability)
    yield from _hardware(wanted.hardware, capability)
    yield from _labels(wanted.labels, capability)
    yield from _custom(wanted.custom, capability)


def _models(wanted: tuple[str, ...], capability: Capability) -> Iterator[_Check]:
    have = {canonical_model_name(name) for name in capability.models}
    for name in wanted:
        yield _Check("models", name, None, name in have or _ALL in have, f"the model {name}")


def _hardware(wanted: Hardware, capability: Capability) -> Iterator[_Check]:
    for field, unit in _BOUNDS:
        bound, found = getattr(wanted, field), getattr(capability, field)
        if bound is not None:
            yield _Check(f"hardware.{field}", bound, found, found >= bound, f"{bound:g} {unit}", f"{found:g}")
    if wanted.gpu_model is not None:
        met = wanted.gpu_model in (_folded(capability.gpu_model) or "")
        what, here = f"a GPU named like {wanted.gpu_model}", capability.gpu_model or "none"
        yield _Check("hardware.gpu_model", wanted.gpu_model, capability.gpu_model, met, what, here)


def _labels(wanted: Mapping[str, str], capability: Capability) -> Iterator[_Check]:
    for key, value in wanted.items():
        found = capability.labels.get(key)
        here = "not set" if found is None else found
        yield _Check(f"labels.{key}", value, found, found == value, f"the label {key}={value}", here)


def _custom(wanted: Mapping[str, Any], capability: Capability) -> Iterator[_Check]:
    have = dict(leaves(capability.custom))
    for path, value in wanted.items():
        found = have.get(path)
        what = f"{path} {'at least ' if _is_number(value) else ''}{_text(value)}"
        here = "not set" if found is None else _text(found)
        yield _Check(f"custom.{path}", value, found, _satisfies(value, found), what, here)


def _isolation(asked: Requirements, capability: Capability) -> Iterator[Mismatch]:
    if asked.isolation is not None and not capability.customers.strict:
        text = "needs strict isolation of customers, not offered here"
        remedy = "keep customers apart (customers.strict in its node file)"
        yield Mismatch(requirement="isolation", wanted=asked.isolation, found=None, text=text, remedy=remedy)


def _customer(customer: str | None, capability: Capability) -> Iterator[Mismatch]:
    access = capability.customers
    remedy = f"take jobs of {'no customer' if customer is None else f'the customer {customer}'}"
    if customer is not None and customer in access.deny:
        text = f"does not take jobs of the customer {customer}"
        yield Mismatch(requirement="customer", wanted=customer, found=access.deny, text=text, remedy=remedy)
    elif access.allow and customer not in access.allow:
        whose = f"the customer {customer}" if customer is not None else "no customer at all"
        text = f"is kept for the customers {', '.join(access.allow)}, the job is of {whose}"
        yield Mismatch(requirement="customer", wanted=customer, found=access.allow, text=text, remedy=remedy)


def _satisfies(wanted: Any, found: Any) -> bool:
    """Compare normal values: lists by what they contain, numbers as lower bounds, all others exactly."""
    if isinstance(found, list):
        return _texts(wanted if isinstance(wanted, list) else [wanted]) <= _texts(found)
    if _is_number(wanted) and _is_number(found):
        return bool(found >= wanted)
    return _text(wanted) == _text(found)


def _asked(value: Any) -> Any:
    """Return `value` without the parts that ask for nothing; None when nothing is left."""
    if isinstance(value, dict):
        value = {key: part for key, item in value.items() if (part := _asked(item)) is not None}
    elif isinstance(value, list | tuple):
        value = [part for item in value if (part := _asked(item)) is not None]
    return None if value in _ASKS_NOTHING else value


def _normal(value: Any) -> Any:
    """Return JSON with plain numbers and with lists as sets in order."""
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = {_text(item): item for item in map(_normal, value)}
        return [item for _, item in sorted(items.items())]
    return _number(value)


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _folded(name: str | None) -> str | None:
    """Return a GPU's name as it is compared; None where it says nothing."""
    folded = (name or "").strip().casefold()
    return None if folded in {"", _ALL} else folded


def _texts(values: list[Any]) -> set[str]:
    return {_text(value) for value in values}


def _text(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _digest(normal: Need | Capability) -> str:
    return sha256(_text(normal).encode()).hexdigest()[:_DIGITS]
