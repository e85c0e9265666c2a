from typing import Any

from muster.domain.capability import Capability
from muster.domain.job import Hardware, JobError, JobStatus, Requirements
from muster.ids import JobId
from muster.jobs.explain import Classes, Held, explain, is_unworkable, why_unworkable
from tests.unit.jobs.makers import WORKER, job, spec

ABLE = ("able", Capability(services=("comfyui",), gpu_memory_gb=24), 2)
SMALL = ("small", Capability(services=("comfyui",), gpu_memory_gb=8), 1)
OTHER = ("other", Capability(services=("ollama",)), 5)
GONE = ("gone", Capability(services=("comfyui",), gpu_memory_gb=48), 0)
BIG_JOB = spec(requirements=Requirements(hardware=Hardware(gpu_memory_gb=24)))


def summary(classes: Classes = (), position: int | None = None, **state: Any) -> str:
    return explain(job(BIG_JOB, **state), classes, position).summary


def test_a_job_that_waits_knows_its_place_and_who_can_run_it():
    assert summary([SMALL, ABLE], 3) == "waits: 3 jobs before it, 1 of 2 classes of workers can run it"
    assert summary([ABLE], 1) == "waits: 1 job before it, 1 of 1 class of workers can run it"
    assert summary([ABLE], 0) == "waits: no jobs before it, 1 of 1 class of workers can run it"
    assert summary([ABLE, GONE]) == "waits: 1 of 1 class of workers can run it"


def test_a_job_nobody_can_run_names_what_the_nearest_workers_lack():
    assert summary([OTHER, SMALL], 0, status=JobStatus.UNWORKABLE) == (
        "nobody in the fleet can run it, not even the nearest workers: needs 24 GB of GPU memory, 8 here"
    )
    assert summary([OTHER]) == (
        "nobody in the fleet can run it, not even the nearest workers: "
        "needs the service comfyui, offers ollama; needs 24 GB of GPU memory, 0 here"
    )


def test_an_empty_fleet_is_said_to_be_empty():
    assert summary([]) == "nobody in the fleet can run it: no worker has been seen yet"


def test_workers_that_could_but_are_away_are_named():
    assert summary([GONE, SMALL]) == "can be run by gone, but no such worker is online"


def test_a_delayed_job_says_until_when_and_why():
    failed = JobError(code="out_of_memory", message="CUDA out of memory")
    assert summary([ABLE], 0, attempt=2, next_attempt_at=1_700_000_000_000, error=failed) == (
        "delayed until 2023-11-14T22:13:20+00:00, attempt 2 failed: CUDA out of memory"
    )


def test_a_delayed_job_that_nobody_can_run_says_so_first():
    assert summary([SMALL], next_attempt_at=1).startswith("nobody in the fleet can run it")


def test_a_running_job_names_its_worker():
    assert summary(status=JobStatus.ASSIGNED, worker_id=WORKER, attempt=1) == f"given to {WORKER}, attempt 1"
    assert summary(status=JobStatus.IN_PROGRESS, worker_id=WORKER, attempt=2) == f"running on {WORKER}, attempt 2"


def test_an_ended_job_says_how():
    assert summary(status=JobStatus.COMPLETED) == "ended: completed"
    lost = JobError(code="worker_lost", message="worker w was not heard any more")
    assert summary(status=JobStatus.FAILED, error=lost) == "ended: failed: worker w was not heard any more"


def test_candidates_come_nearest_first_and_those_online_before_the_others():
    explanation = explain(job(BIG_JOB), [OTHER, GONE, SMALL, ABLE], 4)
    assert [(verdict.class_id, verdict.sessions, len(verdict.mismatches)) for verdict in explanation.candidates] == [
        ("able", 2, 0),
        ("gone", 0, 0),
        ("small", 1, 1),
        ("other", 5, 2),
    ]
    assert explanation.can_run == ("able", "gone")
    assert (explanation.job_id, explanation.status, explanation.position) == ("job-1", JobStatus.PENDING, 4)


def test_a_job_is_unworkable_when_no_worker_online_can_run_it():
    assert is_unworkable(BIG_JOB.need, [])
    assert is_unworkable(BIG_JOB.need, [SMALL, GONE])
    assert not is_unworkable(BIG_JOB.need, [SMALL, ABLE])


def held(**reasons: Any) -> str:
    return explain(job(spec(customer_id="acme")), [ABLE], 0, Held(**reasons)).summary


def test_what_keeps_a_job_besides_workers_is_said():
    few, many = (JobId("a"),), tuple(JobId(f"job-{number}") for number in range(7))
    assert held(waiting_for=few) == "waits for 1 job to end: a"
    assert held(waiting_for=many) == "waits for 7 jobs to end: job-0, job-1, job-2, job-3, job-4, …"
    assert held(paused=True) == "the queue comfyui is paused; POST /api/queues/comfyui/resume"
    assert held(running_max=2) == "waits until fewer than 2 jobs of the customer acme run (running_max)"


def test_a_job_before_its_time_says_when_that_is():
    assert summary([ABLE], next_attempt_at=1_700_000_000_000) == "waits for its time, 2023-11-14T22:13:20+00:00"


def test_a_job_nobody_can_run_says_what_would_help():
    assert why_unworkable(job(BIG_JOB), [ABLE]) is None
    assert (why_unworkable(job(BIG_JOB), [SMALL]) or "").startswith("nobody in the fleet can run it")
    assert (why_unworkable(job(BIG_JOB), [GONE]) or "").endswith("it runs once a worker of gone is back")
    nobody = why_unworkable(job(BIG_JOB), []) or ""
    assert nobody.endswith("it runs once there is a worker that offers the service comfyui")
