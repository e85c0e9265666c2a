"""Requirements as people write them: our own shape, and the one of older clients, read into the one that is kept.

    {"models": [...], "hardware": {...}, "labels": {...}, "custom": {...}, "negative": {...}, "isolation": "strict"}
    {"positive_requirements": {...}, "negative_requirements": {...}, "customer_isolation": "strict"}

Keys that have no meaning of their own are custom capabilities. "all", null, [] and {} ask for nothing. What cannot be
understood is refused: a requirement that was read as none would let a job run anywhere.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from muster.domain.job import Conditions, Hardware, Requirements
from muster.errors import InvalidInput

_NOTHING: tuple[Any, ...] = (None, "all", [], {}, "")
_POSITIVE = "positive_requirements"
_NEGATIVE = ("negative_requirements", "negative")
_ISOLATION = ("customer_isolation", "isolation")
_NOT_ISOLATED = ("none", "loose", "shared", False)
_SERVICE = ("service_type", "service_required")
_MINUTES = "timeout_minutes"


class Asked(Struct, frozen=True, kw_only=True):
    """`timeout_s`: older clients say among the requirements how long an attempt may take."""

    requirements: Requirements
    timeout_s: float | None = None


def read_requirements(given: Any, service: str) -> Asked:
    """Raise InvalidInput naming the field."""
    place = "requirements"
    if given in _NOTHING and given != "":
        return Asked(requirements=Requirements())
    outer = dict(_object(given, place))
    negative = _one_of(outer, _NEGATIVE, place)
    positive = outer.pop(_POSITIVE, None)
    if positive not in _NOTHING:
        positive = dict(_object(positive, f"{place}.{_POSITIVE}"))
        if both := sorted(outer.keys() & positive.keys()):
            raise _refused(f"{place}.{both[0]}", f"is given twice, beside {_POSITIVE} and in it")
        outer |= positive
    isolation = _isolation(_one_of(outer, _ISOLATION, place), f"{place}.{_ISOLATION[0]}")
    timeout_s = _timeout_s(outer.pop(_MINUTES, None), f"{place}.{_MINUTES}")
    named = _one_of(outer, _SERVICE, place)
    if named not in _NOTHING and named != service:
        raise _refused(f"{place}.{_SERVICE[0]}", f"is {named!r}, but the job's service_required is {service!r}")
    wanted = _conditions(outer, place)
    unwanted = _conditions(dict(_object(negative, f"{place}.{_NEGATIVE[0]}")), f"{place}.{_NEGATIVE[0]}")
    requirements = Requirements(
        models=wanted.models,
        hardware=wanted.hardware,
        labels=wanted.labels,
        custom=wanted.custom,
        negative=unwanted if unwanted != Conditions() else None,
        isolation=isolation,
    )
    return Asked(requirements=requirements, timeout_s=timeout_s)


def _conditions(given: dict[str, Any], place: str) -> Conditions:
    models = _models(given.pop("models", None), f"{place}.models")
    hardware = _hardware(given.pop("hardware", None), f"{place}.hardware")
    labels = _object(given.pop("labels", None), f"{place}.labels")
    for key, value in labels.items():
        if not isinstance(value, str):
            raise _refused(f"{place}.labels.{key}", "must be text")
    custom = dict(_object(given.pop("custom", None), f"{place}.custom"))
    if both := sorted(given.keys() & custom.keys()):
        raise _refused(f"{place}.{both[0]}", "is given twice, beside custom and in it")
    return Conditions(models=models, hardware=hardware, labels=dict(labels), custom=given | custom)


def _models(given: Any, place: str) -> tuple[str, ...]:
    if given in _NOTHING:
        return ()
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise _refused(place, 'must be a list of names, or "all"')
    return tuple(names)


def _hardware(given: Any, place: str) -> Hardware:
    asked = {key: value for key, value in _object(given, place).items() if value not in _NOTHING}
    try:
        return msgspec.convert(asked, Hardware)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$.")
        if "unknown field" in problem:
            key = problem.split("`")[1]
            known = ", ".join(Hardware.__struct_fields__)
            raise _refused(
                f"{place}.{key}", f"is not known; known are {known}, all others belong beside hardware"
            ) from None
        raise _refused(f"{place}.{path.rstrip('`')}", f"cannot be read: {problem}") from None


def _isolation(given: Any, place: str) -> Any:
    if given in _NOTHING or given in _NOT_ISOLATED:
        return None
    if given not in ("strict", True):
        raise _refused(place, f'must be "strict" or "none", got {given!r}')
    return "strict"


def _timeout_s(given: Any, place: str) -> float | None:
    if given in _NOTHING:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise _refused(place, f"must be a number of minutes above 0, got {given!r}")
    return given * 60.0


def _one_of(given: dict[str, Any], names: tuple[str, ...], place: str) -> Any:
    """Take out what is given under one of several names."""
    found = [(name, given.pop(name)) for name in names if name in given]
    if len(found) > 1:
        raise _refused(f"{place}.{found[1][0]}", f"is another name of {found[0][0]}; give one of them")
    return found[0][1] if found else None


def _object(given: Any, place: str) -> Mapping[str, Any]:
    if given in _NOTHING and given != "":
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise _refused(place, f"must be an object, got {_kind(given)}")
    return given


def _kind(value: Any) -> str:
    return {str: "text", list: "a list", bool: "true or false", int: "a number", float: "a number"}.get(
        type(value), type(value).__name__
    )


def _refused(field: str, problem: str) -> InvalidInput:
    return InvalidInput(f"{field} {problem}", field=field)
