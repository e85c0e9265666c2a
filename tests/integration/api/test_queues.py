"""Jobs for later, after others and within a time; queues, customers, schedules and replay, as programs ask for them."""

from typing import Any

from muster.domain.job import JobError
from muster.ids import JobId
from muster.wire import Outcome, OutcomeKind
from tests.integration.api.conftest import Served

JOB = {"service_required": "simulation"}


async def ask(
    served: Served, method: str, path: str, body: Any = None, status: int = 200, **options: Any
) -> dict[str, Any]:
    async with served.client.request(method, path, json=body, **options) as answer:
        assert answer.status == status, await answer.text()
        found: dict[str, Any] = await answer.json() if answer.content_type == "application/json" else {}
        return found


async def submit(served: Served, status: int = 201, **fields: Any) -> dict[str, Any]:
    return await ask(served, "POST", "/api/jobs", JOB | fields, status)


async def fail(served: Served, *names: str, code: str = "broken") -> None:
    """Have a worker claim all that waits and fail the named ones for good."""
    claim = await served.plane.claim(want=100)
    attempts = {job.spec.job_id: job.attempt for job in claim.jobs}
    error = JobError(code=code, message=f"it was {code}", retriable=False)
    outcomes = tuple(
        Outcome(job_id=JobId(name), attempt=attempts[JobId(name)], kind=OutcomeKind.FAILED, error=error)
        for name in names
    )
    await served.plane.claim(want=0, done=outcomes)


# --- idempotency ------------------------------------------------------------------------------------------------------


async def test_the_same_key_and_request_is_the_same_job_and_another_request_a_conflict(served: Served) -> None:
    first = await submit(served, idempotency_key="order-7", payload={"steps": 2})
    again = await submit(served, 200, idempotency_key="order-7", payload={"steps": 2})
    assert (again["job_id"], again["created"]) == (first["job_id"], False)
    by_header = await ask(
        served, "POST", "/api/jobs", JOB | {"payload": {"steps": 2}}, headers={"Idempotency-Key": "order-7"}
    )
    assert (by_header["job_id"], by_header["created"]) == (first["job_id"], False)
    refused = await submit(served, 409, idempotency_key="order-7", payload={"steps": 3})
    assert (refused["code"], refused["field"], refused["job_id"]) == ("conflict", "idempotency_key", first["job_id"])
    assert (await submit(served, idempotency_key="order-8", payload={"steps": 3}))["created"]
    assert (await submit(served, 400, idempotency_key=""))["field"] == "idempotency_key"


# --- when and after what ----------------------------------------------------------------------------------------------


async def test_a_job_can_wait_for_its_time(served: Served) -> None:
    now_ms = served.plane.clock.now_ms()
    await served.plane.open_session()
    job = (await submit(served, delay_s=60, deadline_s=90))["job"]
    assert (job["status"], job["next_attempt_at"], job["deadline_s"]) == ("pending", now_ms + 60_000, 90)
    explained = (await ask(served, "GET", f"/api/jobs/{job['id']}/explain"))["explanation"]
    assert explained["summary"].startswith("waits for its time, ")
    assert (await submit(served, 400, delay_s=5, run_at=now_ms))["field"] == "delay_s"
    assert (await submit(served, 400, delay_s=-1))["field"] == "delay_s"
    assert (await submit(served, 400, delay_s=60, deadline_s=30))["field"] == "deadline_s"
    assert (await submit(served, 400, retry={"factor": 0.5}))["field"] == "retry.factor"


async def test_a_job_waits_for_others_and_says_for_which(served: Served) -> None:
    await served.plane.open_session()
    await submit(served, id="first")
    job = (await submit(served, id="second", depends_on=["first"]))["job"]
    assert (job["status"], job["waiting_for"], job["depends_on"]) == ("pending", 1, ["first"])
    explained = (await ask(served, "GET", "/api/jobs/second/explain"))["explanation"]
    assert (explained["summary"], explained["waiting_for"]) == ("waits for 1 job to end: first", ["first"])
    assert (await submit(served, 400, depends_on=["none"]))["field"] == "depends_on"
    assert (await submit(served, 400, id="me", depends_on=["me"]))["field"] == "depends_on"
    await fail(served, "first")
    ended = (await ask(served, "GET", "/api/jobs/second"))["job"]
    assert (ended["status"], ended["error"]["code"]) == ("failed", "dependency_failed")


async def test_a_job_that_nobody_can_run_says_what_would_help_in_lists_too(served: Served) -> None:
    await served.plane.open_session()
    await submit(served, requirements={"hardware": {"gpu_memory_gb": 640}})
    listed = await ask(served, "GET", "/api/jobs?status=unworkable")
    assert (listed["total"], listed["counts"]["unworkable"], listed["counts"]["pending"]) == (1, 1, 0)
    assert "needs 640 GB of GPU memory" in listed["jobs"][0]["reason"]
    assert "it runs once a worker like those of" in listed["jobs"][0]["reason"]
    assert (await ask(served, "GET", "/api/jobs?status=pending"))["total"] == 0
    explained = (await ask(served, "GET", f"/api/jobs/{listed['jobs'][0]['id']}/explain"))["explanation"]
    assert explained["remedy"].endswith("can have 640 GB of GPU memory")


# --- queues -----------------------------------------------------------------------------------------------------------


async def test_a_queue_is_paused_and_resumed(served: Served) -> None:
    await served.plane.open_session()
    await submit(served, id="x")
    served.plane.clock.advance(5)
    paused = await ask(served, "POST", "/api/queues/simulation/pause")
    assert (paused["queue"]["paused"], paused["queue"]["oldest_age_s"]) == (True, 5)
    assert (await served.plane.claim()).jobs == ()
    explained = (await ask(served, "GET", "/api/jobs/x/explain"))["explanation"]
    assert explained["summary"].startswith("the queue simulation is paused")
    listed = await ask(served, "GET", "/api/queues")
    assert [(queue["name"], queue["paused"], queue["waiting"]) for queue in listed["queues"]] == [
        ("simulation", True, 1)
    ]
    assert not (await ask(served, "POST", "/api/queues/simulation/resume"))["queue"]["paused"]
    assert len((await served.plane.claim()).jobs) == 1


async def test_all_queues_are_paused_by_one_word(served: Served) -> None:
    await served.plane.open_session()
    await submit(served)
    await ask(served, "POST", "/api/queues/all/pause")
    assert (await ask(served, "GET", "/api/queues"))["all_paused"]
    assert (await served.plane.claim()).jobs == ()
    await ask(served, "POST", "/api/queues/all/resume")
    assert len((await served.plane.claim()).jobs) == 1
    assert (await ask(served, "POST", "/api/queues/no such/pause", status=400))["field"] == "name"


# --- customers --------------------------------------------------------------------------------------------------------


async def test_a_customers_limits_are_set_seen_and_kept(served: Served) -> None:
    await served.plane.open_session()
    terms = {"weight": 2, "running_max": 1, "waiting_max": 2}
    made = (await ask(served, "PUT", "/api/customers/acme", terms))["customer"]
    assert made == terms | {"customer_id": "acme", "waiting": 0, "running": 0}
    await submit(served, customer_id="acme")
    job_id = (await submit(served, customer_id="acme"))["job_id"]
    refused = await submit(served, 429, customer_id="acme")
    assert (refused["code"], refused["field"], refused["retriable"]) == ("queue_full", "customer_id", True)
    assert len((await served.plane.claim(want=5)).jobs) == 1
    explained = (await ask(served, "GET", f"/api/jobs/{job_id}/explain"))["explanation"]
    assert explained["summary"].startswith("waits until fewer than 1 job of the customer acme run")
    listed = (await ask(served, "GET", "/api/customers"))["customers"]
    assert [(found["customer_id"], found["waiting"], found["running"]) for found in listed] == [("acme", 1, 1)]
    await ask(served, "DELETE", "/api/customers/acme", status=204)
    assert len((await served.plane.claim(want=5)).jobs) == 1
    assert (await ask(served, "GET", "/api/customers/acme"))["customer"]["running_max"] is None
    assert (await ask(served, "PUT", "/api/customers/acme", {"weight": 0}, 400))["field"] == "weight"
    assert (await ask(served, "PUT", "/api/customers/acme", {"running_max": -1}, 400))["field"] == "running_max"


# --- jobs that ended badly --------------------------------------------------------------------------------------------


async def test_failures_are_grouped_and_replayed_by_what_they_have_in_common(served: Served) -> None:
    await served.plane.open_session()
    for name in ("a", "b", "c"):
        await submit(served, id=name)
    await submit(served, id="d", service_required="images")
    await fail(served, "a", "b", code="out_of_memory")
    for name in ("a", "b"):
        assert (await ask(served, "GET", f"/api/jobs/{name}"))["job"]["status"] == "failed"
    found = await ask(served, "GET", "/api/jobs/failures")
    assert [(group["service"], group["code"], group["count"]) for group in found["groups"]] == [
        ("simulation", "out_of_memory", 2)
    ]
    assert (found["groups"][0]["message"], found["next_cursor"]) == ("it was out_of_memory", None)
    none = await ask(served, "POST", "/api/jobs/replay", {"code": "other"})
    assert (none["replayed"], none["looked_at"]) == (0, 2)
    first = await ask(served, "POST", "/api/jobs/replay", {"service": "simulation", "limit": 1})
    assert (first["replayed"], bool(first["next_cursor"])) == (1, True)
    rest = await ask(served, "POST", "/api/jobs/replay", {"limit": 10, "cursor": first["next_cursor"]})
    assert {*first["job_ids"], *rest["job_ids"]} == {"a", "b"}
    assert rest["next_cursor"] is None
    assert (await ask(served, "POST", "/api/jobs/replay", {"status": "completed"}, 400))["field"] == "status"
    assert (await ask(served, "POST", "/api/jobs/replay", {"limit": 0}, 400))["field"] == "limit"


async def test_jobs_are_searched_by_what_is_known_of_them(served: Served) -> None:
    await served.plane.open_session()
    for number in range(4):
        await submit(served, id=f"thumb-{number}", customer_id="acme" if number % 2 else "zenith")
    await submit(served, id="other", service_required="images", workflow_id="wf-1")
    await fail(served, "thumb-0", code="out_of_memory")

    async def found(question: str) -> list[str]:
        return sorted(job["job_id"] for job in (await ask(served, "GET", f"/api/jobs/search?{question}"))["jobs"])

    assert await found("text=THUMB") == ["thumb-0", "thumb-1", "thumb-2", "thumb-3"]
    assert await found("text=memory") == ["thumb-0"]
    assert await found("customer_id=acme") == ["thumb-1", "thumb-3"]
    assert await found("status=failed&service=simulation") == ["thumb-0"]
    assert await found("workflow_id=wf-1") == ["other"]
    assert await found("service=nothing") == []
    assert (await ask(served, "GET", "/api/jobs/search?limit=0", status=400))["field"] == "limit"


async def test_a_question_may_hold_any_character_where_a_token_may_be_in_it(served: Served) -> None:
    assert (await ask(served, "GET", "/api/jobs/failures?code=%C3%A9%FF"))["groups"] == []


# --- schedules --------------------------------------------------------------------------------------------------------


async def test_a_schedule_makes_one_job_for_each_of_its_times(served: Served) -> None:
    plane = served.plane
    made = (await ask(served, "PUT", "/api/schedules/tick", {"job": JOB, "every_s": 60}))["schedule"]
    start_ms = plane.clock.now_ms()
    assert made["next_runs"] == [start_ms + n * 60_000 for n in range(1, 6)]
    await plane.schedules.tick()
    assert (await ask(served, "GET", "/api/jobs"))["total"] == 0
    plane.clock.advance(61)
    for _ in range(2):  # two control planes, or one that was interrupted
        await plane.schedules.tick()
    assert [job["id"] for job in (await ask(served, "GET", "/api/jobs"))["jobs"]] == [f"tick-{start_ms + 60_000}"]
    (listed,) = (await ask(served, "GET", "/api/schedules"))["schedules"]
    assert (listed["last_at"], listed["last_job_id"]) == (start_ms + 60_000, f"tick-{start_ms + 60_000}")
    assert (await ask(served, "POST", "/api/schedules/tick/pause"))["schedule"]["next_runs"] == []
    plane.clock.advance(600)
    await plane.schedules.tick()
    resumed = (await ask(served, "POST", "/api/schedules/tick/resume"))["schedule"]
    assert resumed["next_runs"][0] > plane.clock.now_ms()
    await plane.schedules.tick()
    assert (await ask(served, "GET", "/api/jobs"))["total"] == 1
    await ask(served, "DELETE", "/api/schedules/tick", status=204)
    assert (await ask(served, "GET", "/api/schedules/tick", status=404))["code"] == "schedule_not_found"


async def test_a_schedule_that_cannot_be_is_refused_with_the_field_named(served: Served) -> None:
    for body, field in (
        ({"job": JOB}, "cron"),
        ({"job": JOB, "cron": "every day"}, "cron"),
        ({"job": JOB, "cron": "* * * * *", "time_zone": "Mars/Base"}, "time_zone"),
        ({"job": JOB | {"id": "mine"}, "every_s": 60}, "job.id"),
        ({"job": JOB | {"priority": 101}, "every_s": 60}, "priority"),
        ({"job": {"payload": {}}, "every_s": 60}, "service_required"),
    ):
        assert (await ask(served, "PUT", "/api/schedules/x", body, 400))["field"] == field
    assert (await ask(served, "GET", "/api/schedules"))["schedules"] == []


# --- cancel -----------------------------------------------------------------------------------------------------------


async def test_lesson_who_runs_a_cancelled_job_is_told_and_its_result_is_refused_and_recorded(served: Served) -> None:
    plane = served.plane
    await plane.heartbeat("n1")
    await plane.open_session()
    job_id = (await submit(served))["job_id"]
    (leased,) = (await plane.claim()).jobs
    assert (await ask(served, "POST", f"/api/jobs/{job_id}/cancel"))["job"]["status"] == "cancelled"
    (command,) = plane.commands.newest()
    assert (command.command, command.args, command.node_id) == ("cancel_job", {"job_id": job_id}, "n1")
    done = Outcome(job_id=leased.spec.job_id, attempt=leased.attempt, kind=OutcomeKind.COMPLETED)
    claimed = await plane.claim(want=0, done=(done,))
    assert claimed.refused == (job_id,)
    assert (await ask(served, "GET", f"/api/jobs/{job_id}"))["job"]["status"] == "cancelled"
    told = [entry.event.kind for entry in await plane.store.log.read("0", 100)]
    assert told.count("job_refused") == told.count("job_cancelled") == 1


async def test_lesson_the_deadline_of_a_running_job_ends_it_and_stops_its_worker(served: Served) -> None:
    plane = served.plane
    await plane.heartbeat("n1")
    await plane.open_session()
    job_id = (await submit(served, deadline_s=5))["job_id"]
    await plane.claim()
    plane.clock.advance(5)
    await plane.sweep.sweep_jobs()
    job = (await ask(served, "GET", f"/api/jobs/{job_id}"))["job"]
    assert (job["status"], job["error"]["code"]) == ("timeout", "deadline_exceeded")
    assert [command.args["job_id"] for command in plane.commands.newest()] == [job_id]
