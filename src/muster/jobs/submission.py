"""What a job may ask for: the API decodes types, this checks ranges and sizes."""

from collections import Counter
from typing import Any

import msgspec

from muster.domain.job import Conditions, JobSpec, Requirements, Retry
from muster.errors import InvalidInput, PayloadTooLarge
from muster.ids import check_name
from muster.jobs.matching import leaves
from muster.jobs.order import PRIORITY_MAX

_RANGES: dict[str, tuple[float, float]] = {
    "priority": (0, PRIORITY_MAX),
    "workflow_priority": (0, PRIORITY_MAX),
    "workflow_datetime": (0, 2**53 - 1),  # ms, exact in a double
    "step_number": (0, 1_000_000),
    "max_retries": (0, 100),
    "timeout_s": (1, 7 * 86_400),
    "deadline_s": (1, 366 * 86_400),
    "run_at": (0, 2**53 - 1),
}
_RETRY_RANGES: dict[str, tuple[float, float]] = {
    "base_s": (0, 86_400),
    "factor": (1, 100),
    "max_s": (0, 86_400),
    "jitter": (0, 1),
}
_CODES_MAX = 100
DEPENDS_ON_MAX = 1_000
RUN_AHEAD_MAX_MS = 366 * 86_400_000
_OPAQUE = ("customer_id", "workflow_id")
_CHARS_MAX = 256
_REQUIREMENTS_BYTES_MAX = 16_384
_CUSTOM_LEVELS_MAX = 8


def check(spec: JobSpec, *, payload_bytes: int, payload_bytes_max: int) -> None:
    """Raise InvalidInput naming the first field that cannot be."""
    check_name(spec.job_id, "job_id")
    check_name(spec.service_required, "service_required")
    for field, (least, most) in _RANGES.items():
        value = getattr(spec, field)
        if value is not None and not least <= value <= most:
            raise InvalidInput(f"{field} must be {least:.0f} to {most:.0f}, got {value}", field=field)
    for field in _OPAQUE:
        value = getattr(spec, field)
        if value is not None and not 1 <= len(value) <= _CHARS_MAX:
            raise InvalidInput(f"{field} must have 1 to {_CHARS_MAX} characters, got {len(value)}", field=field)
    if payload_bytes > payload_bytes_max:
        raise PayloadTooLarge(
            f"payload may have {payload_bytes_max} bytes (setting job_payload_bytes_max), got {payload_bytes}; "
            "pass large data by reference",
            field="payload",
        )
    _check_requirements(spec.requirements)
    _check_retry(spec.retry or Retry())
    _check_times(spec)
    _check_dependencies(spec)


def _check_retry(retry: Retry) -> None:
    for field, (least, most) in _RETRY_RANGES.items():
        value = getattr(retry, field)
        if value is not None and not least <= value <= most:
            raise InvalidInput(f"retry.{field} must be {least:.0f} to {most:.0f}, got {value}", field=f"retry.{field}")
    if len(retry.not_on) > _CODES_MAX or any(not 1 <= len(code) <= _CHARS_MAX for code in retry.not_on):
        raise InvalidInput(f"retry.not_on must hold {_CODES_MAX} codes of errors at most", field="retry.not_on")


def _check_times(spec: JobSpec) -> None:
    if spec.run_at is None:
        return
    if spec.run_at > spec.created_at + RUN_AHEAD_MAX_MS:
        raise InvalidInput("run_at must be within a year; it is in ms since the epoch", field="run_at")
    if spec.deadline_s is not None and spec.run_at >= spec.created_at + spec.deadline_s * 1000:
        raise InvalidInput("deadline_s would be over before run_at; it counts from the submit on", field="deadline_s")


def _check_dependencies(spec: JobSpec) -> None:
    if len(spec.depends_on) > DEPENDS_ON_MAX:
        raise InvalidInput(f"depends_on may name {DEPENDS_ON_MAX} jobs, got {len(spec.depends_on)}", field="depends_on")
    for job_id in spec.depends_on:
        check_name(job_id, "depends_on")
    if spec.job_id in spec.depends_on:
        raise InvalidInput(f"depends_on names the job itself, {spec.job_id}", field="depends_on")


def _check_requirements(asked: Requirements) -> None:
    size = 0
    for place, conditions in (("requirements", asked), ("requirements.negative", asked.negative or Conditions())):
        # Depth first: everything after it goes down into `custom` by recursion.
        if _deeper_than(_CUSTOM_LEVELS_MAX, conditions.custom):
            raise InvalidInput(
                f"{place}.custom may nest {_CUSTOM_LEVELS_MAX} levels; flatten it", field=f"{place}.custom"
            )
        size += len(msgspec.json.encode(conditions))
        _check_conditions(conditions, place)
    if size > _REQUIREMENTS_BYTES_MAX:
        raise InvalidInput(
            f"requirements may have {_REQUIREMENTS_BYTES_MAX} bytes, got {size}; ask for less", field="requirements"
        )


def _check_conditions(asked: Conditions, place: str) -> None:
    if "" in asked.models:
        raise InvalidInput(f"{place}.models must not hold an empty name", field=f"{place}.models")
    for name in ("gpu_memory_gb", "cpu_cores", "ram_gb"):
        bound = getattr(asked.hardware, name)
        if bound is not None and bound < 0:
            field = f"{place}.hardware.{name}"
            raise InvalidInput(f"{field} must be 0 or more, got {bound}", field=field)
    for path, times in Counter(path for path, _ in leaves(asked.custom)).items():
        if times > 1:  # {"a": {"b": 1}, "a.b": 2}: one of them would be lost
            raise InvalidInput(f"{place}.custom.{path} is given twice", field=f"{place}.custom.{path}")


def _deeper_than(levels: int, value: Any) -> bool:
    if not isinstance(value, dict | list):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper_than(levels - 1, part) for part in parts)
