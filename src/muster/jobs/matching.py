"""Who can run what, and if not, what is missing.

Needs and capabilities are brought into one normal form first, so that equal ones get equal names (`signature`,
`class_id`) and the store asks `match` once per pair of them, never per claim. "all", null, [] and {} ask for nothing,
and nested objects and dotted keys are two spellings of one path.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from muster.domain.capability import Capability
from muster.domain.job import Hardware, Need, Requirements
from muster.domain.model import canonical_model_name

_ALL = "all"
_ASKS_NOTHING: tuple[Any, ...] = (None, _ALL, [], {})
_DIGITS = 16
_CACHED_NEEDS = 1024

_BOUNDS = (("gpu_memory_gb", "GB of GPU memory"), ("cpu_cores", "CPU cores"), ("ram_gb", "GB of memory"))


class Mismatch(Struct, frozen=True, kw_only=True):
    """One thing that keeps a worker from a job. `requirement` is its path: `hardware.gpu_memory_gb`, `labels.zone`."""

    requirement: str
    wanted: Any
    found: Any
    text: str


def signature(need: Need) -> str:
    """Return the name that equal needs share, however they are spelled."""
    return _digest_and_normal(msgspec.json.encode(need))[0]


def normalised(need: Need) -> Need:
    """Return the need without what asks for nothing, the rest spelled in one way."""
    return _digest_and_normal(msgspec.json.encode(need))[1]


@lru_cache(maxsize=_CACHED_NEEDS)  # of a million jobs nearly all share a few needs
def _digest_and_normal(encoded: bytes) -> tuple[str, Need]:
    need = msgspec.json.decode(encoded, type=Need)
    asked = need.requirements
    hardware = asked.hardware
    normal = Need(
        service=need.service,
        requirements=Requirements(
            models=tuple(sorted({canonical_model_name(name) for name in asked.models} - {_ALL})),
            hardware=Hardware(
                gpu_memory_gb=_number(hardware.gpu_memory_gb or 0) or None,  # a lower bound of 0 is none
                cpu_cores=hardware.cpu_cores or None,
                ram_gb=_number(hardware.ram_gb or 0) or None,
                gpu_model=_folded(hardware.gpu_model),
            ),
            labels={key: value for key, value in asked.labels.items() if value != _ALL},
            custom=dict(leaves(_asked(asked.custom) or {})),
        ),
    )
    return _digest(normal), normal


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
    )
    return "c" + _digest(able)


def match(need: Need, capability: Capability) -> tuple[Mismatch, ...]:
    """Return everything that the worker lacks; nothing: it can run the job."""
    asked = normalised(need).requirements
    return (
        *_service(need.service, capability),
        *_models(asked.models, capability),
        *_hardware(asked.hardware, capability),
        *_labels(asked.labels, capability),
        *_custom(asked.custom, capability),
    )


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
        yield Mismatch(requirement="service", wanted=wanted, found=capability.services, text=text)


def _models(wanted: tuple[str, ...], capability: Capability) -> Iterator[Mismatch]:
    have = {canonical_model_name(name) for name in capability.models}
    if _ALL in have:
        return
    for name in wanted:
        if name not in have:
            yield Mismatch(requirement="models", wanted=name, found=None, text=f"lacks the model {name}")


def _hardware(wanted: Hardware, capability: Capability) -> Iterator[Mismatch]:
    for field, unit in _BOUNDS:
        bound, found = getattr(wanted, field), getattr(capability, field)
        if bound is not None and found < bound:
            text = f"needs {bound:g} {unit}, {found:g} here"
            yield Mismatch(requirement=f"hardware.{field}", wanted=bound, found=found, text=text)
    if wanted.gpu_model is not None and wanted.gpu_model not in (_folded(capability.gpu_model) or ""):
        text = f"needs a GPU named like {wanted.gpu_model}, {capability.gpu_model or 'none'} here"
        yield Mismatch(requirement="hardware.gpu_model", wanted=wanted.gpu_model, found=capability.gpu_model, text=text)


def _labels(wanted: Mapping[str, str], capability: Capability) -> Iterator[Mismatch]:
    for key, value in wanted.items():
        found = capability.labels.get(key)
        if found != value:
            text = f"needs the label {key}={value}, {'not set' if found is None else found} here"
            yield Mismatch(requirement=f"labels.{key}", wanted=value, found=found, text=text)


def _custom(wanted: Mapping[str, Any], capability: Capability) -> Iterator[Mismatch]:
    have = dict(leaves(capability.custom))
    for path, value in wanted.items():
        found = have.get(path)
        if not _satisfies(value, found):
            least = "at least " if _is_number(value) else ""
            text = f"needs {path} {least}{_text(value)}, {'not set' if found is None else _text(found)} here"
            yield Mismatch(requirement=f"custom.{path}", wanted=value, found=found, text=text)


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
