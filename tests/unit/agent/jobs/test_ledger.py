"""What a worker owes, in any order of events."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from muster.agent.jobs.ledger import Key, Ledger
from muster.domain.job import ClaimedJob, JobSpec, encode_result
from muster.ids import JobId
from muster.wire import Outcome, OutcomeKind

MEGABYTE = 1_000_000


def claimed(job_id: str, attempt: int = 1) -> ClaimedJob:
    return ClaimedJob(spec=JobSpec(job_id=JobId(job_id), service_required="work"), attempt=attempt, deadline_ms=0)


def completed(job_id: str, attempt: int = 1, size: int = 0) -> Outcome:
    return Outcome(
        job_id=JobId(job_id), attempt=attempt, kind=OutcomeKind.COMPLETED, result=encode_result("x" * size)
    )  # fmt: skip


def test_jobs_beyond_the_slots_are_owed_back() -> None:
    ledger = Ledger(2)
    admission = ledger.admit([claimed("a"), claimed("b"), claimed("c")], accepting=True)
    assert [job.spec.job_id for job in admission.start] == ["a", "b"]
    assert [(outcome.job_id, outcome.kind) for outcome in ledger.take(9, MEGABYTE)] == [("c", OutcomeKind.RETURNED)]


def test_a_lost_job_keeps_its_slot_until_its_connector_has_let_go() -> None:
    ledger = Ledger(1)
    ledger.admit([claimed("a")], accepting=True)
    assert ledger.drop([(JobId("a"), 1)]) == [("a", 1)]
    assert ledger.free == 0
    assert not ledger.finish(completed("a"))
    assert ledger.free == 1
    assert ledger.settled


def test_what_is_lost_of_another_attempt_means_nothing() -> None:
    ledger = Ledger(1)
    ledger.admit([claimed("a", 2)], accepting=True)
    assert ledger.drop([(JobId("a"), 1), (JobId("b"), 1)]) == []
    assert ledger.held() == (("a", 2),)


def test_a_newer_attempt_takes_the_place_of_an_outcome_that_was_not_told_yet() -> None:
    ledger = Ledger(1)
    ledger.admit([claimed("a", 1)], accepting=True)
    ledger.finish(completed("a", 1))
    ledger.admit([claimed("a", 2)], accepting=True)
    assert ledger.held() == (("a", 2),)
    assert not ledger.owes


def test_outcomes_are_taken_by_count_and_size_but_always_one() -> None:
    ledger = Ledger(5)
    names = ["a", "b", "c", "d", "e"]
    ledger.admit([claimed(name) for name in names], accepting=True)
    for name in names:
        ledger.finish(completed(name, size=100))
    assert [outcome.job_id for outcome in ledger.take(2, MEGABYTE)] == ["a", "b"]
    assert [outcome.job_id for outcome in ledger.take(9, 250)] == ["c", "d"]
    assert [outcome.job_id for outcome in ledger.take(9, 1)] == ["e"]
    assert ledger.take(9, MEGABYTE) == ()


def test_what_could_not_be_told_comes_first_the_next_time() -> None:
    ledger = Ledger(2)
    ledger.admit([claimed("a"), claimed("b")], accepting=True)
    ledger.finish(completed("a"))
    done = ledger.take(9, MEGABYTE)
    ledger.finish(completed("b"))
    ledger.put_back(done)
    assert [outcome.job_id for outcome in ledger.take(9, MEGABYTE)] == ["a", "b"]


def test_what_was_lost_during_the_call_is_not_owed_after_it() -> None:
    ledger = Ledger(1)
    ledger.admit([claimed("a")], accepting=True)
    ledger.finish(completed("a"))
    done = ledger.take(9, MEGABYTE)
    ledger.drop([(JobId("a"), 1)])
    ledger.put_back(done)
    ledger.acknowledge(done)
    assert ledger.settled


def test_an_outcome_may_be_owed_in_other_words_or_not_at_all() -> None:
    ledger = Ledger(1)
    ledger.admit([claimed("a")], accepting=True)
    ledger.finish(completed("a"))
    (before,) = ledger.take(9, MEGABYTE)
    ledger.put_back([before])
    other = completed("a", size=3)
    ledger.amend(other, of=before)
    assert ledger.take(9, MEGABYTE) == (other,)
    ledger.put_back([other])
    ledger.amend(None, of=before)  # no longer what is owed
    assert ledger.owes
    ledger.amend(None, of=other)
    assert ledger.settled


STEPS = st.lists(
    st.tuples(st.sampled_from(["claim", "repeat", "hold", "end", "lose", "tell", "fail"]), st.integers(0, 3)),
    max_size=60,
)


@given(st.integers(1, 3), STEPS)
def test_every_lease_ends_once_and_slots_are_kept_whatever_happens(slots: int, steps: list[tuple[str, int]]) -> None:
    ledger = Ledger(slots)
    attempts: Counter[JobId] = Counter()
    at_work: set[Key] = set()
    lost: set[Key] = set()
    told: list[Key] = []
    for step, number in steps:
        job_id = JobId(f"job-{number}")
        match step:
            case "claim" | "hold":
                attempts[job_id] += 1
                held_before = dict(ledger.held())
                if job_id in held_before:
                    lost.add((job_id, held_before[job_id]))
                admission = ledger.admit([claimed(job_id, attempts[job_id])], accepting=step == "claim")
                at_work |= {(job.spec.job_id, job.attempt) for job in admission.start}
            case "repeat" if job_id in dict(ledger.held()):
                assert not ledger.admit([claimed(job_id, attempts[job_id])], accepting=True).start
            case "end":
                for key in sorted(key for key in at_work if key[0] == job_id):
                    at_work.remove(key)
                    assert ledger.finish(completed(*key)) is (key not in lost)
            case "lose":
                keys = [key for key in ledger.held() if key[0] == job_id]
                lost |= set(keys)
                ledger.drop(keys)
            case "tell" | "fail":
                done = ledger.take(2, MEGABYTE)
                if step == "tell":
                    told += [(outcome.job_id, outcome.attempt) for outcome in done]
                    ledger.acknowledge(done)
                ledger.put_back(done)
        assert len(at_work) <= slots
        assert ledger.free == slots - len(at_work)
        assert len(told) == len(set(told))
        every = {(job_id, attempt) for job_id, last in attempts.items() for attempt in range(1, last + 1)}
        assert {*ledger.held(), *told, *lost} == every
        assert not {*ledger.held()} & {*told, *lost}
