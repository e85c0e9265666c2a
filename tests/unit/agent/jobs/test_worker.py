"""A worker against a queue, in virtual time."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from muster.agent.jobs.offer import Means, make_offer
from muster.agent.jobs.worker import Worker
from muster.domain.job import ClaimedJob, Progress
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import WorkerStatus
from muster.errors import InvalidInput, MusterError, StoreUnavailable, Unauthorized, UpstreamFailed
from muster.ids import JobId, NodeId
from muster.ports import FileLink, JobLink, ReportProgress
from muster.wire import ClaimReply, ClaimRequest, OutcomeKind, encode
from tests.unit.agent.connectors import FakeConnector, take_payload_seconds
from tests.unit.agent.queues import FakeQueue, Trouble, WireLink, spec
from tests.unit.agent.virtual_time import LoopClock, in_virtual_time, time_passes, until


@asynccontextmanager
async def working(
    link: JobLink,
    connector: FakeConnector,
    *,
    slots: int = 1,
    stop_timeout_s: float = 10.0,
    files: FileLink | None = None,
    **means: Any,
) -> AsyncIterator[Worker]:
    worker = Worker(
        NodeId("gpu-1"), 0, link, LoopClock(), random.Random(1), slots=slots, stop_timeout_s=stop_timeout_s, files=files
    )  # fmt: skip
    worker.offer(make_offer({connector.name: connector}, (), Means(**means)))
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


def says(error: Exception) -> Callable[..., Awaitable[Any]]:
    async def fail(*_: object) -> Any:
        raise error

    return fail


async def never(*_: object) -> Any:
    await asyncio.Event().wait()


# --- the way of a job ------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_job_is_claimed_run_and_told() -> None:
    queue = FakeQueue([spec("a", payload={"n": 1})])
    async with working(WireLink(queue), FakeConnector()) as worker:
        await until(lambda: queue.settled)
        assert worker.record().jobs_completed == 1
        assert worker.record().status is WorkerStatus.IDLE
    (outcome,) = queue.settled
    assert (outcome.job_id, outcome.attempt, outcome.kind) == ("a", 1, OutcomeKind.COMPLETED)
    assert bytes(outcome.result) == b'{"echo":{"n":1}}'  # type: ignore[arg-type]  # set: it completed


@in_virtual_time
async def test_what_is_done_travels_with_the_next_claim() -> None:
    queue = FakeQueue([spec("a"), spec("b"), spec("c")])
    async with working(WireLink(queue), FakeConnector()):
        await until(lambda: len(queue.settled) == 3)
    told = [claim for claim in queue.claims if claim.done]
    assert [claim.done[0].job_id for claim in told] == ["a", "b", "c"]
    assert all(claim.want == 1 for claim in told)


@in_virtual_time
async def test_a_finished_job_is_told_at_once_while_a_claim_waits_for_more() -> None:
    queue = FakeQueue([spec("a", payload=2.0)])
    async with working(WireLink(queue), FakeConnector(behaviour=take_payload_seconds), slots=4):
        started = LoopClock().monotonic_s()
        await until(lambda: queue.settled)
        assert LoopClock().monotonic_s() - started < 2.1
    (told,) = [claim for claim in queue.claims if claim.done]
    assert told.want == 0


@in_virtual_time
async def test_a_job_that_comes_while_the_worker_waits_is_run_at_once() -> None:
    queue = FakeQueue()
    async with working(WireLink(queue), FakeConnector()):
        await time_passes(7)
        started = LoopClock().monotonic_s()
        queue.add(spec("a"))
        await until(lambda: queue.settled)
        assert LoopClock().monotonic_s() - started < 0.1


@in_virtual_time
async def test_waiting_for_work_costs_few_calls() -> None:
    queue = FakeQueue()
    async with working(WireLink(queue), FakeConnector()):
        await time_passes(200)
    assert len(queue.claims) <= 11


@in_virtual_time
async def test_a_control_plane_that_does_not_wait_is_not_hammered() -> None:
    queue = FakeQueue()

    class Hasty(WireLink):
        async def claim(self, message: ClaimRequest) -> ClaimReply:
            queue.claims.append(message)
            return ClaimReply()

    async with working(Hasty(queue), FakeConnector()):
        await time_passes(100)
    assert len(queue.claims) < 80


# --- slots -----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_lesson_all_slots_work_and_never_more_whatever_the_queue_sends() -> None:
    queue = FakeQueue([spec(f"job-{n}", payload=0.5) for n in range(20)])
    queue.overfull = 3
    connector = FakeConnector(behaviour=take_payload_seconds)
    async with working(WireLink(queue), connector, slots=4):
        await until(lambda: len(queue.ended()) == 20)
    assert connector.most_at_once == 4
    assert queue.ended(OutcomeKind.RETURNED)
    assert sorted(queue.ended()) == sorted(f"job-{n}" for n in range(20))


@in_virtual_time
async def test_a_reply_that_comes_twice_starts_nothing_twice() -> None:
    queue = FakeQueue([spec("a", payload=5.0)])

    class Stutter(WireLink):
        last = ClaimReply()

        async def claim(self, message: ClaimRequest) -> ClaimReply:
            reply = await super().claim(message)
            self.last = reply if reply.jobs else self.last
            return self.last if connector.running.total() else reply

    connector = FakeConnector(behaviour=take_payload_seconds)
    async with working(Stutter(queue), connector, slots=2):
        await until(queue.ended)
    assert connector.runs == [("a", 1)]


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "retriable"),
    [
        (InvalidInput("payload.steps must be a number", field="payload.steps"), "invalid_input", False),
        (UpstreamFailed("the service is gone"), "upstream_failed", True),
        (ValueError("a bug"), "connector_error", True),
        (TimeoutError("its own"), "connector_error", True),
        (asyncio.CancelledError(), "connector_error", True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_lesson_what_a_connector_raises_becomes_a_failure(error: Exception, code: str, retriable: bool) -> None:  # noqa: FBT001  # a table
    @in_virtual_time
    async def run() -> None:
        queue = FakeQueue([spec("a")])
        async with working(WireLink(queue), FakeConnector(behaviour=says(error))) as worker:
            await until(lambda: queue.settled)
            assert worker.record().jobs_failed == 1
        (outcome,) = queue.settled
        assert outcome.kind is OutcomeKind.FAILED
        assert outcome.error
        assert (outcome.error.code, outcome.error.retriable) == (code, retriable)

    run()


@in_virtual_time
async def test_an_attempt_that_takes_too_long_is_stopped_by_our_own_clock() -> None:
    queue = FakeQueue([spec("a", timeout_s=3)])
    connector = FakeConnector(behaviour=never)
    async with working(WireLink(queue), connector):
        await until(lambda: queue.settled)
    assert queue.settled[0].error
    assert queue.settled[0].error.code == "timed_out"
    assert connector.running.total() == 0


@in_virtual_time
async def test_a_result_that_is_no_json_is_a_failure() -> None:
    async def odd(*_: object) -> object:
        return object()

    queue = FakeQueue([spec("a")])
    async with working(WireLink(queue), FakeConnector(behaviour=odd)):
        await until(lambda: queue.ended(OutcomeKind.FAILED))


@in_virtual_time
async def test_a_job_that_nothing_here_can_run_any_more_fails_and_may_be_retried() -> None:
    queue = FakeQueue([spec("a", service="paint")])
    async with working(WireLink(queue), FakeConnector()):
        await until(lambda: queue.settled)
    assert queue.settled[0].error
    assert queue.settled[0].error.code == "service_unavailable"


@in_virtual_time
async def test_an_outcome_that_the_queue_cannot_take_is_singled_out_and_told_as_a_failure() -> None:
    queue = FakeQueue([spec(f"job-{n}", payload="poison" if n == 5 else n) for n in range(8)])

    class Picky(WireLink):
        async def claim(self, message: ClaimRequest) -> ClaimReply:
            if any(outcome.kind is OutcomeKind.COMPLETED and b"poison" in encode(outcome) for outcome in message.done):
                raise InvalidInput("the result holds what I cannot take", field="done")
            return await super().claim(message)

    async with working(Picky(queue), FakeConnector(), slots=8):
        await until(lambda: len(queue.settled) == 8)
    assert queue.ended(OutcomeKind.FAILED) == ["job-5"]


@in_virtual_time
async def test_an_outcome_that_is_refused_even_as_a_failure_holds_up_nothing() -> None:
    queue = FakeQueue([spec("a"), spec("b")])

    class Deaf(WireLink):
        async def claim(self, message: ClaimRequest) -> ClaimReply:
            if any(outcome.job_id == "a" for outcome in message.done):
                raise InvalidInput("not this one", field="done")
            return await super().claim(message)

    async with working(Deaf(queue), FakeConnector()):
        await until(lambda: "b" in queue.ended())


# --- progress --------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_progress_is_told_a_few_times_a_second_newest_first() -> None:
    async def chatty(_: ClaimedJob, __: Service | None, report: ReportProgress) -> None:
        for step in range(1000):
            report(Progress(fraction=step / 1000))
            await time_passes(0.002)

    queue = FakeQueue([spec("a")])
    async with working(WireLink(queue), FakeConnector(behaviour=chatty)):
        await until(lambda: queue.settled)
    fractions = [report.progress.fraction or 0 for report in queue.progress]
    assert 6 <= len(fractions) <= 9
    assert fractions == sorted(fractions)


@in_virtual_time
async def test_a_job_that_takes_a_while_is_seen_to_run_though_its_connector_says_nothing() -> None:
    queue = FakeQueue([spec("quick"), spec("slow", payload=1.0)])

    async def silent(job: ClaimedJob, *_: object) -> None:
        await time_passes(job.spec.payload or 0)

    async with working(WireLink(queue), FakeConnector(behaviour=silent)):
        await until(lambda: len(queue.settled) == 2)
    assert [(report.job_id, report.progress) for report in queue.progress] == [("slow", Progress())]


@in_virtual_time
async def test_progress_that_could_not_be_told_is_told_later_unless_there_is_newer() -> None:
    async def halfway(_: ClaimedJob, __: Service | None, report: ReportProgress) -> None:
        report(Progress(fraction=0.5))
        await time_passes(5)

    async def trouble(call: str) -> None:
        if call == "report_progress" and LoopClock().monotonic_s() < 1002:
            raise UpstreamFailed("cut")

    queue = FakeQueue([spec("a")])
    async with working(WireLink(queue, trouble), FakeConnector(behaviour=halfway)):
        await until(lambda: queue.settled)
    assert [report.progress.fraction for report in queue.progress] == [0.5]


# --- leases ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_all_that_is_held_is_renewed_as_often_as_asked() -> None:
    queue = FakeQueue([spec("a", payload=10.0)], renew_every_s=2.0)
    link = WireLink(queue)
    async with working(link, FakeConnector(behaviour=take_payload_seconds)):
        await until(lambda: queue.settled)
    assert link.calls.count("renew") in {4, 5}
    assert queue.attempts[JobId("a")] == 1  # nothing was given back as not held


@pytest.mark.parametrize("by", ["renew", "report_progress"])
def test_a_lost_job_is_stopped_and_its_slot_is_free(by: str) -> None:
    @in_virtual_time
    async def run() -> None:
        queue = FakeQueue([spec("a", payload=1000.0), spec("b", payload=0.1)], renew_every_s=1 if by == "renew" else 99)
        connector = FakeConnector(behaviour=take_payload_seconds)
        async with working(WireLink(queue), connector):
            await until(lambda: connector.running["a"])
            queue.lose("a", again=False)
            if by == "report_progress":
                await time_passes(250)
            await until(lambda: queue.settled)
        assert queue.ended() == ["b"]
        assert connector.running["a"] == 0
        assert not queue.refused  # its outcome is not even told

    run()


@in_virtual_time
async def test_a_job_lost_and_claimed_again_runs_once_as_the_newer_attempt() -> None:
    queue = FakeQueue([spec("a", payload=3.0)], renew_every_s=99)
    connector = FakeConnector(behaviour=take_payload_seconds)
    async with working(WireLink(queue), connector, slots=2):
        await until(lambda: connector.running["a"])
        queue.lose("a")
        await until(lambda: queue.settled)
    assert [(outcome.job_id, outcome.attempt) for outcome in queue.settled] == [("a", 2)]
    assert not queue.refused


@in_virtual_time
async def test_an_outcome_keeps_its_lease_until_it_is_acknowledged() -> None:
    queue = FakeQueue([spec("a")], renew_every_s=1.0, grace_s=0.0)

    async def trouble(call: str) -> None:
        if call == "claim" and 1000.5 < LoopClock().monotonic_s() < 1020:
            raise StoreUnavailable("away")

    async with working(WireLink(queue, trouble), FakeConnector(behaviour=take_payload_seconds)) as worker:
        queue.line[0] = spec("a", payload=1.0)
        await until(lambda: queue.settled)
        assert worker.record().status is WorkerStatus.IDLE
    assert queue.ended() == ["a"]
    assert queue.attempts[JobId("a")] == 1


@in_virtual_time
async def test_a_lease_from_a_reply_that_never_came_goes_back() -> None:
    queue = FakeQueue([spec("a")])
    calls = 0

    async def trouble(call: str) -> None:
        nonlocal calls
        calls += call == "claim"
        if call == "claim" and calls == 2:  # on the way back of the first claim
            raise UpstreamFailed("cut")

    async with working(WireLink(queue, trouble), FakeConnector()):
        await until(queue.ended)
    assert queue.attempts[JobId("a")] == 2


@in_virtual_time
async def test_a_renewal_that_hangs_does_not_keep_the_next_from_being_tried() -> None:
    queue = FakeQueue([spec("a", payload=30.0)])
    link = WireLink(queue, None)

    class Hanging(WireLink):
        async def renew(self, message: Any) -> Any:
            self.calls.append("renew")
            if self.calls.count("renew") < 4:
                await asyncio.Event().wait()
            return await super().renew(message)

    link = Hanging(queue)
    async with working(link, FakeConnector(behaviour=take_payload_seconds)):
        await until(lambda: queue.settled)
    assert link.calls.count("renew") > 8


# --- the session -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_session_that_was_forgotten_is_opened_again() -> None:
    queue = FakeQueue()
    async with working(WireLink(queue), FakeConnector()):
        await time_passes(5)
        queue.forget_sessions()
        await time_passes(2)
        queue.add(spec("a"))
        await until(queue.ended)
    assert len(queue.capabilities) == 2


@in_virtual_time
async def test_a_change_of_capability_is_told_and_no_change_is_not() -> None:
    queue = FakeQueue()
    connector = FakeConnector()
    painter = FakeConnector("paint", needs_service=True)
    both = {"work": connector, "paint": painter}
    async with working(WireLink(queue), connector) as worker:
        await time_passes(1)
        worker.offer(make_offer(both, (), Means()))
        await time_passes(1)
        assert [offered.services for offered in queue.capabilities] == [("work",)]
        service = Service(name="easel", connector="paint", status=ServiceStatus.RUNNING)
        worker.offer(make_offer(both, (service,), Means()))
        await time_passes(1)
        queue.add(spec("a", service="paint"))
        await until(queue.ended)
    assert [offered.services for offered in queue.capabilities] == [("work",), ("work", "paint")]
    assert painter.services == ["easel"]


@in_virtual_time
async def test_a_worker_that_is_not_taken_says_why_and_works_once_it_is() -> None:
    refusals: list[MusterError] = [Unauthorized("the token is wrong")] * 3

    async def trouble(call: str) -> None:
        if call == "open_session" and refusals:
            raise refusals.pop()

    queue = FakeQueue([spec("a")])
    async with working(WireLink(queue, trouble), FakeConnector()) as worker:
        await until(lambda: worker.refusal)
        assert worker.record().status is WorkerStatus.ERROR
        assert worker.refusal == "the token is wrong"
        await until(queue.ended)
        assert worker.refusal is None


@in_virtual_time
async def test_no_control_plane_is_waited_for_with_longer_and_longer_pauses() -> None:
    async def trouble(_: str) -> None:
        if LoopClock().monotonic_s() < 1300:
            raise UpstreamFailed("nobody there")

    queue = FakeQueue([spec("a")])
    link = WireLink(queue, trouble)
    async with working(link, FakeConnector()) as worker:
        await time_passes(299)
        assert worker.record().status is WorkerStatus.STARTING
        assert len(link.calls) < 130
        await until(queue.ended, timeout_s=10)


@in_virtual_time
async def test_a_fault_of_our_own_does_not_end_the_worker() -> None:
    faults = [KeyError("a bug"), ValueError("another")]

    async def trouble(call: str) -> None:
        if call == "claim" and faults:
            raise faults.pop()

    queue = FakeQueue([spec("a")])
    async with working(WireLink(queue, trouble), FakeConnector()):
        await until(queue.ended)


# --- holding and stopping --------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_held_worker_finishes_what_runs_and_claims_no_more() -> None:
    queue = FakeQueue([spec("a", payload=2.0), spec("b", payload=0.1)])
    async with working(WireLink(queue), FakeConnector(behaviour=take_payload_seconds)) as worker:
        await until(lambda: worker.record().current_jobs)
        worker.hold(held=True)
        assert worker.record().status is WorkerStatus.DRAINING
        await time_passes(100)
        assert queue.ended() == ["a"]
        worker.hold(held=False)
        await until(lambda: len(queue.ended()) == 2)


@in_virtual_time
async def test_a_job_that_reaches_a_held_worker_goes_back_unrun() -> None:
    queue = FakeQueue()
    connector = FakeConnector()
    async with working(WireLink(queue), connector) as worker:
        await time_passes(1)
        worker.hold(held=True)
        queue.add(spec("a"))
        await until(lambda: queue.ended(OutcomeKind.RETURNED))
    assert connector.runs == []


@in_virtual_time
async def test_a_stop_lets_jobs_end_gives_the_rest_back_and_closes_the_session() -> None:
    queue = FakeQueue([spec("short", payload=2.0), spec("long", payload=1000.0)])
    connector = FakeConnector(behaviour=take_payload_seconds)
    async with working(WireLink(queue), connector, slots=2, stop_timeout_s=5) as worker:
        await until(lambda: len(worker.record().current_jobs) == 2)
        started = LoopClock().monotonic_s()
        await worker.stop()
        assert LoopClock().monotonic_s() - started < 6
    assert queue.ended() == ["short"]
    assert queue.ended(OutcomeKind.RETURNED) == ["long"]
    assert len(queue.closed) == 1
    assert connector.running.total() == 0
    assert worker.record().status is WorkerStatus.STOPPED


@in_virtual_time
async def test_a_stop_without_a_control_plane_ends_all_the_same() -> None:
    cut = False

    async def trouble(_: str) -> None:
        if cut:
            raise UpstreamFailed("cut")

    queue = FakeQueue([spec("a", payload=3.0)])
    async with working(WireLink(queue, trouble), FakeConnector(behaviour=take_payload_seconds)) as worker:
        await until(lambda: worker.record().current_jobs)
        cut = True
        async with asyncio.timeout(30):
            await worker.stop()


@in_virtual_time
async def test_a_stop_gives_up_on_a_connector_that_does_not_let_go() -> None:
    async def stubborn(*_: object) -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                return await time_passes(60)

    queue = FakeQueue([spec("a")])
    async with working(WireLink(queue), FakeConnector(behaviour=stubborn), stop_timeout_s=1) as worker:
        await until(lambda: worker.record().current_jobs)
        async with asyncio.timeout(30):
            await worker.stop()
    assert not queue.leases  # the closed session gave it back


@in_virtual_time
async def test_stopping_twice_or_before_the_start_does_nothing() -> None:
    queue = FakeQueue()
    worker = Worker(NodeId("gpu-1"), 0, WireLink(queue), LoopClock(), random.Random(1))
    await worker.stop()
    await worker.start()
    await worker.start()
    await until(lambda: queue.sessions)
    await worker.stop()
    await worker.stop()
    await worker.start()
    assert len(queue.closed) == 1


# --- whatever happens ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_every_job_ends_once_and_no_slot_is_used_twice_whatever_the_link_does(seed: int) -> None:
    @in_virtual_time
    async def run() -> None:
        rng = random.Random(seed)
        jobs = [f"job-{n}" for n in range(40)]
        queue = FakeQueue([spec(job_id, payload=rng.random() * 2) for job_id in jobs])
        queue.overfull = rng.choice([0, 0, 2])
        trouble = Trouble(seed, share=rng.choice([0.05, 0.2, 0.5]))
        connector = FakeConnector(behaviour=take_payload_seconds)
        slots = rng.choice([1, 3, 8])

        async with working(WireLink(queue, trouble), connector, slots=slots, stop_timeout_s=1.0) as worker:
            for _ in range(20):
                await time_passes(rng.random() * 4)
                match rng.randrange(5):
                    case 0 if queue.leases:
                        queue.lose(rng.choice(sorted(queue.leases)))
                    case 1:
                        queue.forget_sessions()
                    case 2:
                        worker.hold(held=rng.random() < 0.5)
            trouble.over = True
            worker.hold(held=False)
            await until(lambda: len(queue.ended()) == len(jobs))
            assert connector.most_at_once <= slots
        assert sorted(queue.ended()) == sorted(jobs)
        assert connector.running.total() == 0
        assert not queue.leases

    run()
