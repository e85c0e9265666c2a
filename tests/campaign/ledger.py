"""What must be true of jobs: checked event by event as the log of facts tells them, at last against their states."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct

from tests.campaign.orders import Order

ENDS = {"job_completed": "completed", "job_failed": "failed", "job_timeout": "timeout", "job_cancelled": "cancelled"}
GOES_ON = frozenset({"job_retrying", "job_returned"})


class Violation(Struct, frozen=True, kw_only=True):
    rule: str
    job_id: str
    what: str


class Life(Struct, kw_only=True):
    """A job as far as the log has told it. `worker` runs its newest attempt, if any does."""

    submitted: bool = False
    attempt: int = 0
    worker: str | None = None
    end: str | None = None


class Ledger:
    """Feed it every event in the order of the log."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.violations: list[Violation] = []
        self.kinds: Counter[str] = Counter()
        self.ended_at_ms: list[int] = []
        self.event_ids: set[str] = set()
        self._newest = (0, 0)
        rules: dict[str, Callable[[str, Life, str | None, int | None], None]] = {
            "job_submitted": self._submitted,
            "job_claimed": self._claimed,
            "job_started": self._started,
            "job_revived": self._revived,
        }
        self._rules = rules

    def feed(self, events: Iterable[Mapping[str, Any]]) -> None:
        for event in events:
            self._note(event)
            kind, worker = event["kind"], event["data"].get("worker_id")
            if not kind.startswith("job_"):
                continue
            ids = event["ids"] or [event["key"]]
            attempts = event["data"].get("attempts") or [None] * len(ids)
            self.kinds[kind] += len(ids)
            for job_id, attempt in zip(ids, attempts, strict=True):
                life = self.lives.setdefault(job_id, Life())
                if kind in self._rules:
                    self._rules[kind](job_id, life, worker, attempt)
                elif kind in ENDS or kind in GOES_ON:
                    self._attempt_ended(job_id, life, worker, attempt, kind)
                    if kind in ENDS:
                        self.ended_at_ms.append(event["at_ms"])

    def _note(self, event: Mapping[str, Any]) -> None:
        first, _, second = event["id"].partition("-")
        place = (int(first), int(second or 0))
        if place <= self._newest:
            self._object("log_out_of_order", event["key"], f"event {event['id']} after {self._newest}")
        self._newest = max(place, self._newest)
        self.event_ids.add(event["id"])

    # --- rules --------------------------------------------------------------------------------------------------------

    def _submitted(self, job_id: str, life: Life, _worker: str | None, _attempt: int | None) -> None:
        if life.submitted:
            self._object("submitted_twice", job_id, "the log tells two submits of one id")
        life.submitted = True

    def _claimed(self, job_id: str, life: Life, worker: str | None, attempt: int | None) -> None:
        if not life.submitted:
            self._object("claimed_before_submit", job_id, f"by {worker}")
        if life.end is not None:
            self._object("alive_after_its_end", job_id, f"claimed by {worker} after it was {life.end}")
        if life.worker is not None:
            self._object(
                "run_by_two", job_id, f"claimed by {worker} while {life.worker} runs its attempt {life.attempt}"
            )
        if attempt != life.attempt + 1:
            self._object("attempts_not_counted", job_id, f"attempt {attempt} comes after {life.attempt}")
        life.attempt, life.worker = attempt or 0, worker

    def _started(self, job_id: str, life: Life, worker: str | None, attempt: int | None) -> None:
        if (worker, attempt) != (life.worker, life.attempt):
            self._object("not_the_holder", job_id, f"started by {_who(worker, attempt)}, {_holder(life)}")

    def _revived(self, job_id: str, life: Life, _worker: str | None, _attempt: int | None) -> None:
        if life.end is None:
            self._object("revived_alive", job_id, "it had not ended")
        life.end = None

    def _attempt_ended(self, job_id: str, life: Life, worker: str | None, attempt: int | None, kind: str) -> None:
        if life.end is not None:
            rule = "ended_twice" if kind in ENDS else "alive_after_its_end"
            self._object(rule, job_id, f"{kind} after it was {life.end}")
        elif worker is None and kind == "job_cancelled":  # it waited
            if life.worker is not None:
                self._object("not_the_holder", job_id, f"cancelled as waiting, {_holder(life)}")
        elif (worker, attempt) != (life.worker, life.attempt):
            self._object("not_the_holder", job_id, f"{kind} by {_who(worker, attempt)}, {_holder(life)}")
        life.worker = None
        life.end = ENDS.get(kind)

    def _object(self, rule: str, job_id: str, what: str) -> None:
        self.violations.append(Violation(rule=rule, job_id=job_id, what=what))


def audit(
    ledger: Ledger, accepted: Mapping[str, Order], asked: Iterable[str], jobs: Mapping[str, Mapping[str, Any]]
) -> list[Violation]:
    """Hold the states of jobs (as the API shows each, with its result) against the log, and both against the orders.

    `asked` are the ids of all submits that were tried, whether or not an answer came.
    """
    known = set(asked)
    strangers = sorted((set(jobs) | set(ledger.lives)) - known)
    found = [Violation(rule="unaccounted", job_id=job_id, what="nobody asked for it") for job_id in strangers]
    for job_id, order in accepted.items():
        life, job = ledger.lives.get(job_id, Life()), jobs.get(job_id)
        if job is None:
            found.append(Violation(rule="lost", job_id=job_id, what="its submit was accepted, and it is not there"))
            continue
        found += [
            Violation(rule=rule, job_id=job_id, what=what) for rule, what in _differences(order, life, job) if what
        ]
    return found


def _differences(order: Order, life: Life, job: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    status = job["status"]
    if not life.submitted:
        yield "submit_not_told", "no event tells of its submit"
    if status not in ENDS.values():
        yield "not_ended", f"it is {status} after all was done"
        return
    if status != life.end:
        yield "state_against_log", f"it is {status}, and the log ends with {life.end}"
    if job["attempt"] != life.attempt:
        yield "state_against_log", f"it had {job['attempt']} attempts, and the log tells {life.attempt}"
    if status not in order.may_end:
        yield "wrong_end", f"it is {status}, not {' or '.join(sorted(order.may_end))}: {job.get('error')}"
    if status == "completed" and job.get("result") != order.result:
        yield "wrong_result", f"its result is {str(job.get('result'))[:80]!r}"


def forgotten(seen_live: Ledger, at_last: Ledger) -> list[Violation]:
    """Find what was told while the campaign ran and is gone from the log: an acknowledged write was lost."""
    gone = sorted(seen_live.event_ids - at_last.event_ids)
    return [Violation(rule="forgotten", job_id="", what=f"event {event_id} was told and is gone") for event_id in gone]


def _who(worker: str | None, attempt: int | None) -> str:
    return f"attempt {attempt} of {worker}"


def _holder(life: Life) -> str:
    return f"while attempt {life.attempt} {f'is run by {life.worker}' if life.worker else 'has ended'}"
