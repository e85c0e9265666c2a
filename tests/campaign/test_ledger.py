"""The checker of campaigns, tried on logs that are as they must be, and on logs that are not."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.campaign.ledger import Ledger, audit, forgotten
from tests.campaign.orders import Order

ONE = Order(job_id="j1", result={"n": 1})
_numbers: Iterator[int] = count(1)


def event(kind: str, *ids: str, worker: str | None = None, attempts: list[int] | None = None) -> dict[str, Any]:
    number = next(_numbers)
    data = {"worker_id": worker, "attempts": attempts or [1] * len(ids)} if worker else {}
    return {
        "id": f"{number}-0",
        "kind": kind,
        "key": ids[0],
        "ids": list(ids) if len(ids) > 1 else [],
        "at_ms": number,
        "data": data,
    }


def submitted() -> dict[str, Any]:
    return event("job_submitted", "j1")


def told(kind: str, worker: str, attempt: int) -> dict[str, Any]:
    return event(kind, "j1", worker=worker, attempts=[attempt])


def ledger_of(*events: dict[str, Any]) -> Ledger:
    ledger = Ledger()
    ledger.feed(events)
    return ledger


def rules_broken(*events: dict[str, Any]) -> list[str]:
    return [violation.rule for violation in ledger_of(*events).violations]


def job(status: str = "completed", attempt: int = 1, result: Any = None) -> dict[str, Any]:
    return {"status": status, "attempt": attempt, "result": {"n": 1} if result is None else result}


def good() -> list[dict[str, Any]]:
    return [submitted(), told("job_claimed", "a", 1), told("job_started", "a", 1), told("job_completed", "a", 1)]


def test_a_life_without_trouble_breaks_no_rule() -> None:
    ledger = ledger_of(*good())
    assert ledger.violations == []
    assert audit(ledger, {"j1": ONE}, ["j1"], {"j1": job()}) == []


def test_retries_returns_cancels_revivals_and_late_results_are_no_faults() -> None:
    log = [
        event("job_submitted", "j1", "j2", "j3"),
        event("job_claimed", "j1", "j2", worker="a", attempts=[1, 1]),
        event("job_retrying", "j1", worker="a"),
        event("job_returned", "j2", worker="a"),
        event("job_cancelled", "j2"),
        event("job_claimed", "j1", worker="b", attempts=[2]),
        event("job_refused", "j1", worker="a", attempts=[1]),
        event("job_failed", "j1", worker="b", attempts=[2]),
        event("job_revived", "j1"),
        event("job_claimed", "j1", worker="a", attempts=[3]),
        event("job_cancelled", "j1", worker="a", attempts=[3]),
        event("node_registered", "a"),
        event("job_of_a_kind_to_come", "j3"),
        event("job_claimed", "j3", worker="b"),
        event("job_timeout", "j3", worker="b"),
    ]
    ledger = ledger_of(*log)
    assert ledger.violations == []
    orders = {name: Order(job_id=name, may_end=frozenset({"cancelled", "timeout"})) for name in ("j1", "j2", "j3")}
    states = {"j1": job("cancelled", 3), "j2": job("cancelled", 1), "j3": job("timeout", 1)}
    assert audit(ledger, orders, orders, states) == []


@pytest.mark.parametrize(
    ("rule", "after_good"),
    [
        ("ended_twice", told("job_completed", "a", 1)),
        ("ended_twice", told("job_failed", "b", 1)),
        ("ended_twice", event("job_cancelled", "j1")),
        ("alive_after_its_end", told("job_retrying", "a", 1)),
        ("alive_after_its_end", told("job_claimed", "b", 2)),
        ("submitted_twice", event("job_submitted", "j1")),
    ],
)
def test_what_has_ended_stays_ended(rule: str, after_good: dict[str, Any]) -> None:
    last = after_good | {"id": f"{next(_numbers)}-0"}
    assert rule in rules_broken(*good(), last)


def test_an_attempt_is_run_by_one_worker_at_a_time() -> None:
    claimed = [submitted(), told("job_claimed", "a", 1)]
    assert rules_broken(*claimed, told("job_claimed", "b", 2)) == ["run_by_two"]
    assert "attempts_not_counted" in rules_broken(*claimed, told("job_claimed", "b", 1))
    gone_back = [submitted(), told("job_claimed", "a", 1), told("job_retrying", "a", 1)]
    assert rules_broken(*gone_back, told("job_claimed", "b", 1)) == ["attempts_not_counted"]
    assert rules_broken(told("job_claimed", "a", 1)) == ["claimed_before_submit"]


@pytest.mark.parametrize("kind", ["job_started", "job_completed", "job_failed", "job_retrying", "job_returned"])
@pytest.mark.parametrize(("worker", "attempt"), [("b", 2), ("a", 1), ("a", 2), ("b", 1)])
def test_only_the_holder_of_the_running_attempt_counts(kind: str, worker: str, attempt: int) -> None:
    second = [submitted(), told("job_claimed", "a", 1), told("job_retrying", "a", 1), told("job_claimed", "b", 2)]
    broken = rules_broken(*second, told(kind, worker, attempt))
    assert broken == ([] if (worker, attempt) == ("b", 2) else ["not_the_holder"])


def test_nobody_ends_what_waits_and_what_runs_is_not_cancelled_as_waiting() -> None:
    assert rules_broken(submitted(), told("job_completed", "a", 1)) == ["not_the_holder"]
    assert rules_broken(submitted(), told("job_claimed", "a", 1), event("job_cancelled", "j1")) == ["not_the_holder"]
    assert rules_broken(*good(), event("job_revived", "j1")) == []
    assert rules_broken(submitted(), event("job_revived", "j1")) == ["revived_alive"]


def test_a_log_only_grows() -> None:
    first, second = submitted(), told("job_claimed", "a", 1)
    assert rules_broken(first, second | {"id": first["id"]}) == ["log_out_of_order"]


@pytest.mark.parametrize(
    ("rule", "state"),
    [
        ("not_ended", job("in_progress")),
        ("not_ended", job("pending")),
        ("state_against_log", job("failed")),
        ("state_against_log", job(attempt=2)),
        ("wrong_result", job(result={"n": 2})),
        ("wrong_result", {"status": "completed", "attempt": 1, "result": None}),
        ("wrong_end", job("cancelled")),
    ],
)
def test_states_are_held_against_the_log_and_the_order(rule: str, state: dict[str, Any]) -> None:
    broken = audit(ledger_of(*good()), {"j1": ONE}, ["j1"], {"j1": state})
    assert rule in {violation.rule for violation in broken}


def test_what_is_gone_what_was_never_told_and_what_nobody_asked_for_is_found() -> None:
    ledger = ledger_of(*good())
    assert [found.rule for found in audit(ledger, {"j1": ONE}, ["j1"], {})] == ["lost"]
    assert [found.rule for found in audit(ledger, {}, [], {"j1": job()})] == ["unaccounted"]
    assert audit(ledger, {}, ["j1"], {"j1": job()}) == []  # asked for, only its answer never came
    rules = {found.rule for found in audit(Ledger(), {"j1": ONE}, ["j1"], {"j1": job()})}
    assert rules == {"submit_not_told", "state_against_log"}


def test_an_event_that_was_told_and_is_gone_is_found() -> None:
    log = good()
    live, kept = ledger_of(*log), ledger_of(*log[:-1])
    assert [found.rule for found in forgotten(live, kept)] == ["forgotten"]
    assert forgotten(kept, live) == []
