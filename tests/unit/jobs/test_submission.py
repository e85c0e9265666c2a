from typing import Any

import pytest

from muster.domain.job import Hardware, Requirements, Retry
from muster.errors import InvalidInput, PayloadTooLarge
from muster.ids import JobId
from muster.jobs import submission
from tests.unit.jobs.makers import spec


def check(payload_bytes: int = 10, **fields: Any) -> None:
    submission.check(spec(**fields), payload_bytes=payload_bytes, payload_bytes_max=100)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"x": 1}
    for _ in range(levels - 1):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"priority": 0},
        {"priority": 100, "workflow_priority": 100, "workflow_datetime": 0, "step_number": 0},
        {"max_retries": 0, "timeout_s": 1},
        {"max_retries": 100, "timeout_s": 7 * 86_400.0},
        {"customer_id": "someone@example.org", "workflow_id": "a workflow"},
        {"requirements": Requirements(custom=nested(8))},
        {"requirements": Requirements(hardware=Hardware(gpu_memory_gb=0, ram_gb=1.5), models=("m",))},
    ],
)
def test_what_is_within_its_bounds_passes(fields):
    check(**fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("job_id", ""),
        ("job_id", "a/b"),
        ("service_required", ""),
        ("service_required", "{oops}"),
        ("priority", -1),
        ("priority", 101),
        ("workflow_priority", 101),
        ("workflow_datetime", -1),
        ("step_number", -1),
        ("max_retries", -1),
        ("max_retries", 101),
        ("timeout_s", 0.5),
        ("timeout_s", float("nan")),
        ("timeout_s", 7 * 86_400 + 1),
        ("customer_id", ""),
        ("workflow_id", "x" * 257),
        ("deadline_s", 0),
        ("run_at", 367 * 86_400_000),
        ("depends_on", tuple(JobId(f"job-{number}") for number in range(2, 1_003))),
        ("depends_on", (JobId("no/id"),)),
        ("depends_on", (JobId("job-1"),)),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(field, value):
    with pytest.raises(InvalidInput) as refused:
        check(**{field: value})
    assert refused.value.field == field
    assert field in refused.value.message


@pytest.mark.parametrize(
    ("requirements", "field"),
    [
        (Requirements(models=("a", "")), "requirements.models"),
        (Requirements(hardware=Hardware(gpu_memory_gb=-1)), "requirements.hardware.gpu_memory_gb"),
        (Requirements(hardware=Hardware(cpu_cores=-1)), "requirements.hardware.cpu_cores"),
        (Requirements(hardware=Hardware(ram_gb=-0.5)), "requirements.hardware.ram_gb"),
        (Requirements(labels={"k": "x" * 20_000}), "requirements"),
        (Requirements(custom=nested(9)), "requirements.custom"),
        (Requirements(custom={"x": [[[[[[[[[1]]]]]]]]]}), "requirements.custom"),
        (Requirements(custom={"a": {"b": 1}, "a.b": 2}), "requirements.custom.a.b"),
    ],
)
def test_requirements_that_cannot_be_are_refused_by_name(requirements, field):
    with pytest.raises(InvalidInput) as refused:
        check(requirements=requirements)
    assert refused.value.field == field
    assert field in refused.value.message


@pytest.mark.parametrize(
    ("retry", "field"),
    [(Retry(factor=0.5), "retry.factor"), (Retry(jitter=2), "retry.jitter"), (Retry(not_on=("",)), "retry.not_on")],
)
def test_a_way_of_trying_again_that_cannot_be_is_refused_by_name(retry: Retry, field: str):
    with pytest.raises(InvalidInput) as refused:
        check(retry=retry)
    assert refused.value.field == field


def test_a_job_that_would_be_over_before_its_time_is_refused():
    check(run_at=5_000, deadline_s=6)
    with pytest.raises(InvalidInput) as refused:
        check(run_at=5_000, deadline_s=5)
    assert refused.value.field == "deadline_s"


def test_jobs_to_wait_for_are_fine_when_there_are_few():
    check(depends_on=(JobId("job-2"), JobId("job-3")))


def test_requirements_too_deep_for_the_stack_are_refused_like_any_other():
    with pytest.raises(InvalidInput):
        check(requirements=Requirements(custom=nested(100_000)))


def test_a_payload_over_its_bound_is_refused_with_both_figures():
    check(payload_bytes=100)
    with pytest.raises(PayloadTooLarge, match=r"100 bytes .setting job_payload_bytes_max., got 101") as refused:
        check(payload_bytes=101)
    assert refused.value.field == "payload"
