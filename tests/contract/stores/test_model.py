"""Any sequence of calls: each store does what the oracle says, in order, with one end for each job and none lost."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from itertools import count
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from muster.domain.capability import Capability, CustomerAccess
from muster.domain.job import ACTIVE, TERMINAL, JobStatus, Settlement
from muster.domain.queue import CustomerTerms
from muster.errors import InvalidInput, InvalidTransition
from muster.ids import JobId
from muster.stores.memory import MemoryStore
from muster.stores.valkey import ValkeyStore
from tests.clocks import ManualClock
from tests.contract.stores.oracle import LEASE_MS, Oracle, Session, Told
from tests.contract.stores.world import Hand, Store, again, completed, failed, spec
from tests.valkey_server import KINDS, ValkeyServer

T = TypeVar("T")

_CLASSES = (
    Capability(services=("llm",)),
    Capability(services=("llm", "images"), gpu_memory_gb=24),
    Capability(services=("llm",), customers=CustomerAccess(deny=("umbrella",))),
    Capability(services=("images",), customers=CustomerAccess(allow=("acme",))),
)
_CUSTOMERS = (None, "acme", "umbrella")
_ENDS = {"job_completed", "job_failed", "job_timeout", "job_cancelled"}
_prefixes = count()

workers = st.integers(0, 3)
picks = st.integers(0, 1000)  # of those that are there


class JobStoreMachine(RuleBasedStateMachine):
    """Does to a store and to the oracle the same, and looks whether they still agree."""

    kind: ClassVar[str]
    servers: ClassVar[dict[str, ValkeyServer]]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.store = self.do(self._open())
        self.hands = [Hand(self.store, f"n{number}", has) for number, has in enumerate(_CLASSES)]
        self.oracle = Oracle(self.clock.now_ms())
        self.submitted = 0
        self.past: list[tuple[Hand, Settlement]] = []  # outcomes that were told

    async def _open(self) -> Store:
        if self.kind == "memory":
            return MemoryStore(self.clock, event_log_entries_max=100_000)
        if self.kind not in self.servers:
            self.servers[self.kind] = ValkeyServer(self.kind)
            self.servers[self.kind].start()
        url = self.servers[self.kind].url
        return await ValkeyStore.open(url, clock=self.clock, prefix=f"model-{next(_prefixes)}")

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    def teardown(self) -> None:
        self.do(self._check_log())
        self.do(self.store.close())
        self.loop.close()

    async def _check_log(self) -> None:
        told: Counter[str] = Counter()
        for entry in await self.store.log.read("0", 100_000):
            if entry.event.kind in _ENDS:
                told.update(entry.event.ids or (entry.event.key,))
        assert told == self.oracle.ends

    # --- people -------------------------------------------------------------------------------------------------------

    @rule(
        jobs=st.integers(1, 4),
        priority=st.sampled_from([50, 50, 90]),
        service_required=st.sampled_from(["llm", "images"]),
        customer_id=st.sampled_from(_CUSTOMERS),
        delay_s=st.sampled_from([0, 0, 3]),
        deadline_s=st.sampled_from([None, None, 8]),
        depends_on=st.just([]) | st.lists(picks, max_size=2),
        on_failure=st.sampled_from(["fail", "run"]),
    )
    def submit(self, jobs: int, depends_on: list[int], delay_s: int, **fields: Any) -> None:
        known = list(self.oracle.jobs)
        needs = tuple(JobId(known[pick % len(known)]) for pick in depends_on) if known else ()
        run_at = self.clock.now_ms() + delay_s * 1000 if delay_s else None
        numbers = range(self.submitted, self.submitted + jobs)
        self.submitted += jobs
        specs = [
            # Names that do not sort by time.
            spec(f"j{number * 37 % 1000:03}", run_at=run_at, depends_on=needs, timeout_s=20, **fields)
            for number in numbers
        ]
        for entry, job in zip(self.do(self.store.jobs.submit(specs)), specs, strict=True):
            assert entry.created == self.oracle.submit(job)

    @precondition(lambda self: self.oracle.jobs)
    @rule(pick=picks)
    def submit_again(self, pick: int) -> None:
        (entry,) = self.do(self.store.jobs.submit([self._pick(pick).spec]))
        assert not entry.created

    @rule()
    def submit_what_waits_for_nobody(self) -> None:
        with pytest.raises(InvalidInput):
            self.do(self.store.jobs.submit([spec("never", depends_on=(JobId("none"),))]))

    @precondition(lambda self: self.oracle.jobs)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        job = self._pick(pick)
        if job.status in TERMINAL:
            with pytest.raises(InvalidTransition):
                self.do(self.store.jobs.cancel(job.spec.job_id))
            return
        self.do(self.store.jobs.cancel(job.spec.job_id))
        self.oracle.end(job, JobStatus.CANCELLED)

    @precondition(lambda self: self.oracle.jobs)
    @rule(pick=picks)
    def revive(self, pick: int) -> None:
        job = self._pick(pick)
        if job.status in TERMINAL - {JobStatus.COMPLETED}:
            self.do(self.store.jobs.revive(job.spec.job_id))
            self.oracle.revive(job)
            return
        with pytest.raises(InvalidTransition):
            self.do(self.store.jobs.revive(job.spec.job_id))

    @rule(service=st.sampled_from(["llm", "images"]), paused=st.booleans())
    def pause(self, service: str, *, paused: bool) -> None:
        changed = self.do(self.store.jobs.set_paused(service, paused=paused))
        assert changed is ((service in self.oracle.paused) is not paused)
        (self.oracle.paused.add if paused else self.oracle.paused.discard)(service)

    @rule(customer=st.sampled_from(["acme", "umbrella"]), running_max=st.sampled_from([None, 0, 1, 2]))
    def limit(self, customer: str, running_max: int | None) -> None:
        terms = None if running_max is None else CustomerTerms(running_max=running_max)
        known = self.do(self.store.jobs.set_customer(customer, terms))
        assert known is (self.oracle.limits.pop(customer, None) is not None)
        if running_max is not None:
            self.oracle.limits[customer] = running_max

    # --- workers ------------------------------------------------------------------------------------------------------

    @rule(worker=workers)
    def open(self, worker: int) -> None:
        hand = self.hands[worker]
        self.do(hand.opens())
        self.oracle.sessions[hand.session] = Session(hand.capability, self.clock.now_ms() + LEASE_MS)

    @rule(worker=workers)
    def close(self, worker: int) -> None:
        hand = self.hands[worker]
        held = self.oracle.held(hand.session)
        assert set(self.do(self.store.jobs.close_session(hand.session))) == {job.spec.job_id for job in held}
        self.oracle.sessions.pop(hand.session, None)
        for job in held:
            self.oracle.end_attempt(job, JobStatus.PENDING, counts=False)

    @rule(
        worker=workers,
        want=st.integers(0, 4),
        how=st.lists(st.sampled_from("cfrlg"), max_size=3),
        opens=st.sampled_from([True, True, False]),
    )
    def claim(self, worker: int, want: int, how: list[str], *, opens: bool) -> None:
        hand = self.hands[worker]
        if hand.session not in self.oracle.sessions and opens:
            self.open(worker)
        done = []
        for job, outcome in zip(self.oracle.held(hand.session), how, strict=False):
            done.append(self._settlement(job, outcome))
            self._settled(job, done[-1])
        self.past += [(hand, settlement) for settlement in done]
        claimed = self.do(hand.claims(want, *done))
        assert claimed.refused == ()
        assert claimed.session_known is (hand.session in self.oracle.sessions)
        expected = self.oracle.claim(hand.session, want) if claimed.session_known else []
        assert [(given.spec.job_id, given.attempt) for given in claimed.jobs] == expected

    @precondition(lambda self: self.past)
    @rule(pick=picks)
    def tell_another_end_of_what_was_told_before(self, pick: int) -> None:
        hand, before = self.past[pick % len(self.past)]
        other = failed if before.status is JobStatus.COMPLETED else completed
        late = other(before.job_id, before.attempt)
        claimed = self.do(hand.claims(0, late))
        assert claimed.refused == (before.job_id,)
        if hand.session in self.oracle.sessions:
            self.oracle.claim(hand.session, 0)

    # --- time ---------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 3, 6, 16]))
    def wait(self, seconds: int) -> None:
        """Let time pass, and then do what the sweep does."""
        self.clock.advance(seconds)
        self.oracle.now_ms = self.clock.now_ms()
        leases = self.do(self.store.jobs.overdue(1000))
        assert {lease.spec.job_id for lease in leases} == self.oracle.overdue()
        lost = [again(lease.spec.job_id, lease.attempt) for lease in leases]
        assert self.do(self.store.jobs.settle(lost)) == [True] * len(lost)
        for settlement in lost:
            self._settled(self.oracle.jobs[settlement.job_id], settlement)
        assert not self.do(self.store.jobs.expire(1000)).more
        self.do(self.store.jobs.promote(1000))
        self.oracle.tick()

    @rule(keep_max=st.integers(0, 3))
    def purge(self, keep_max: int) -> None:
        assert self.do(self.store.jobs.purge(0, keep_max, 1000)) == len(self.oracle.purge(keep_max))
        self.past = [entry for entry in self.past if entry[1].job_id in self.oracle.jobs]

    # --- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def all_agree(self) -> None:
        if not self.oracle.jobs:
            return
        found = self.do(self.store.jobs.get([JobId(name) for name in self.oracle.jobs]))
        for shown, job in zip(found, self.oracle.jobs.values(), strict=True):
            assert shown is not None
            state = shown.state
            assert (state.status, state.attempt, state.retry_count, state.waiting_for, state.next_attempt_at) == (
                job.status,
                job.attempt,
                job.retries,
                len(job.unmet),
                job.due_ms,
            )

    @invariant()
    def the_line_is_in_order_and_counts_are_right(self) -> None:
        line = self.oracle.line()
        page = self.do(self.store.jobs.page(None, None, 1000))
        in_line = [job.job_id for job in page.jobs if self.oracle.jobs[job.job_id].in_line]
        assert in_line == line
        assert page.total == len(page.jobs) == len(self.oracle.jobs)
        shown = Counter(self.oracle.shown(job) for job in self.oracle.jobs.values())
        assert self.do(self.store.jobs.counts()) == {status: shown[status] for status in JobStatus}
        for customer in ("acme", "umbrella"):
            figures = self.do(self.store.jobs.customer(customer))
            own = [job for job in self.oracle.jobs.values() if job.spec.customer_id == customer]
            assert figures.running == self.oracle.running(customer)
            assert figures.waiting == sum(job.status not in TERMINAL | ACTIVE for job in own)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _pick(self, pick: int) -> Told:
        jobs = list(self.oracle.jobs.values())
        return jobs[pick % len(jobs)]

    def _settlement(self, job: Told, how: str) -> Settlement:
        name, attempt = job.spec.job_id, job.attempt
        return {
            "c": completed(name, attempt),
            "f": failed(name, attempt),
            "r": again(name, attempt),
            "l": again(name, attempt, at_ms=self.clock.now_ms() + 2000),
            "g": again(name, attempt, counts=False),
        }[how]

    def _settled(self, job: Told, settlement: Settlement) -> None:
        counts, at_ms = settlement.counts, settlement.retry_at_ms
        self.oracle.end_attempt(job, settlement.status, counts=counts, at_ms=at_ms)


@pytest.fixture(scope="module")
def started() -> Iterator[dict[str, ValkeyServer]]:
    running: dict[str, ValkeyServer] = {}
    yield running
    for server in running.values():
        server.remove()


@pytest.mark.parametrize(("kind", "examples"), [("memory", 60), *((kind, 20) for kind in KINDS)])
def test_the_store_does_what_the_oracle_says(kind: str, examples: int, started: dict[str, ValkeyServer]) -> None:
    class Machine(JobStoreMachine):
        pass

    Machine.kind, Machine.servers = kind, started
    limits = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],  # to shrink takes minutes, and the steps are told as they are
        database=None,
    )
    case = Machine.TestCase
    case.settings = limits
    case("runTest").debug()
