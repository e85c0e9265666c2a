"""What one worker owes: the jobs it runs, and outcomes that the control plane has not acknowledged.

Every lease that is taken in leaves in exactly one way: its outcome is acknowledged, or it is lost. Of one job only the
newest attempt is held.
"""

from collections.abc import Iterable

from msgspec import UNSET, Struct

from muster.domain.job import ClaimedJob
from muster.ids import JobId
from muster.wire import Outcome, OutcomeKind

Key = tuple[JobId, int]  # a job and its attempt


class Admission(Struct, frozen=True):
    """What a claim's reply leads to. `superseded` run here and have a newer attempt in the reply: stop them."""

    start: list[ClaimedJob]
    superseded: list[Key]


class Ledger:
    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._running: dict[JobId, int] = {}
        self._stopping: set[Key] = set()  # lost, but their connectors have not let go yet
        self._unsent: dict[JobId, Outcome] = {}
        self._sent: dict[JobId, Outcome] = {}

    @property
    def free(self) -> int:
        return self.slots - len(self._running) - len(self._stopping)

    @property
    def running(self) -> tuple[JobId, ...]:
        return tuple(self._running)

    @property
    def owes(self) -> bool:
        """Whether outcomes wait to be sent."""
        return bool(self._unsent)

    @property
    def settled(self) -> bool:
        return not (self._running or self._stopping or self._unsent or self._sent)

    def held(self) -> tuple[Key, ...]:
        """Return all leases to keep: an outcome that is not acknowledged needs its lease as well."""
        owed = (*self._unsent.values(), *self._sent.values())
        return (*self._running.items(), *((outcome.job_id, outcome.attempt) for outcome in owed))

    def admit(self, jobs: Iterable[ClaimedJob], *, accepting: bool) -> Admission:
        """Take in as many as there are slots; the others are owed back, unrun."""
        admission = Admission([], [])
        for job in jobs:
            job_id = job.spec.job_id
            known = self._attempt(job_id)
            if known is not None and known >= job.attempt:
                continue  # a reply that came late or twice
            if known is not None:
                admission.superseded.extend(self.drop([(job_id, known)]))
            if accepting and self.free > 0:
                self._running[job_id] = job.attempt
                admission.start.append(job)
            else:
                self._unsent[job_id] = Outcome(job_id=job_id, attempt=job.attempt, kind=OutcomeKind.RETURNED)
        return admission

    def finish(self, outcome: Outcome) -> bool:
        """Note how an attempt ended; False when it was lost before, and its outcome means nothing."""
        self._stopping.discard((outcome.job_id, outcome.attempt))
        if self._running.get(outcome.job_id) != outcome.attempt:
            return False
        del self._running[outcome.job_id]
        self._unsent[outcome.job_id] = outcome
        return True

    def drop(self, keys: Iterable[Key]) -> list[Key]:
        """Forget lost leases; the returned ones are to be stopped, and keep their slots until `finish`."""
        stopped = []
        for key in keys:
            job_id, attempt = key
            if self._attempt(job_id) != attempt:
                continue
            if self._running.pop(job_id, None) is not None:
                stopped.append(key)
                self._stopping.add(key)
            self._unsent.pop(job_id, None)
            self._sent.pop(job_id, None)
        return stopped

    def take(self, count_max: int, bytes_max: int) -> tuple[Outcome, ...]:
        """Hand out outcomes for one call, oldest first, at least one; `acknowledge` or `put_back` must follow."""
        taken: list[Outcome] = []
        size_bytes = 0
        for outcome in self._unsent.values():
            size_bytes += 0 if outcome.result is UNSET else len(outcome.result)
            if taken and (len(taken) >= count_max or size_bytes > bytes_max):
                break
            taken.append(outcome)
        for outcome in taken:
            self._sent[outcome.job_id] = self._unsent.pop(outcome.job_id)
        return tuple(taken)

    def acknowledge(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if self._sent.get(outcome.job_id) is outcome:
                del self._sent[outcome.job_id]

    def put_back(self, outcomes: Iterable[Outcome]) -> None:
        """Owe outcomes anew, before all others, whose call failed; what was lost meanwhile stays lost."""
        again = {outcome.job_id: outcome for outcome in outcomes if self._sent.get(outcome.job_id) is outcome}
        for job_id in again:
            del self._sent[job_id]
        self._unsent = again | self._unsent

    def amend(self, outcome: Outcome | None, of: Outcome) -> None:
        """Owe `outcome` instead of `of`, which was put back; None: nothing."""
        if self._unsent.get(of.job_id) is of:
            del self._unsent[of.job_id]
            if outcome is not None:
                self._unsent[of.job_id] = outcome

    def _attempt(self, job_id: JobId) -> int | None:
        if job_id in self._running:
            return self._running[job_id]
        outcome = self._unsent.get(job_id) or self._sent.get(job_id)
        return outcome.attempt if outcome else None
