"""A checker that cannot fail proves nothing: each rule is broken on purpose, and found."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
import pytest

from muster.control.recorder import Recorder
from muster.domain.job import ACTIVE, Job, JobSpec, JobStatus, Lease, Settlement, encode_result
from muster.domain.node import Health, Node, NodeFacts
from muster.ids import JobId, NodeId, SessionId, WorkerId
from muster.placement import filters
from muster.placement.candidate import Candidate
from muster.placement.choose import Decision, choose
from muster.placement.wish import Wish
from muster.ports import Claimed, JobPage, Renewed, Submitted
from muster.registry.book import Effect, Heard, NodeBook, Verdict
from muster.registry.boots import Boots, Standing
from muster.registry.departed import Departed
from muster.sim import checkers, ledger, people, worker
from muster.sim.report import render
from muster.sim.scenario import large_fleet
from muster.sim.watched import JobStore
from muster.sim.world import TAKEN_IN, World, run
from muster.stores.memory.jobs import MemoryJobs
from muster.stores.memory.table import JobTable
from muster.wire import Heartbeat
from tests.sim.worlds import ROUGH, small

Patch = pytest.MonkeyPatch


class Bent:
    """The store in memory, but for what a subclass does wrong."""

    def __init__(self, straight: MemoryJobs) -> None:
        self.straight = straight

    def __getattr__(self, name: str) -> Any:
        return getattr(self.straight, name)


class ForgetsAJob(Bent):
    async def get(self, job_ids: Sequence[JobId]) -> list[Any]:
        found = await self.straight.get(job_ids)
        return [None if job and job.job_id == "job-7" and job.state.attempt else job for job in found]


class NeverGivesUpOnAnybody(Bent):
    async def overdue(self, limit: int) -> list[Lease]:
        return []


class ClaimsBent(Bent):
    async def claim(
        self, session_id: SessionId, worker_id: WorkerId, want: int, done: Sequence[Settlement] = (), **more: Any
    ) -> Claimed:
        return await self.straight.claim(session_id, worker_id, want, done, **more)


class CountsLateOutcomes(ClaimsBent):
    async def claim(self, *args: Any, **more: Any) -> Claimed:
        return msgspec.structs.replace(await super().claim(*args, **more), refused=())


class RefusesGoodOutcomes(ClaimsBent):
    async def claim(
        self, session_id: SessionId, worker_id: WorkerId, want: int, done: Sequence[Settlement] = (), **more: Any
    ) -> Claimed:
        claimed = await self.straight.claim(session_id, worker_id, want, done, **more)
        return msgspec.structs.replace(claimed, refused=tuple(settlement.job_id for settlement in done))


class MixesUpResults(ClaimsBent):
    async def claim(
        self, session_id: SessionId, worker_id: WorkerId, want: int, done: Sequence[Settlement] = (), **more: Any
    ) -> Claimed:
        mixed = [msgspec.structs.replace(settlement, result=encode_result("another's")) for settlement in done]
        return await self.straight.claim(session_id, worker_id, want, mixed, **more)


class LeasesTwice(ClaimsBent):
    """Hands the first job that it ever leased to whoever comes next as well."""

    first: Any = None

    async def claim(self, *args: Any, **more: Any) -> Claimed:
        claimed = await super().claim(*args, **more)
        if self.first is not None and not claimed.jobs and claimed.session_known:
            return msgspec.structs.replace(claimed, jobs=(self.first,))
        if self.first is None and claimed.jobs:
            self.first = msgspec.structs.replace(claimed.jobs[0], attempt=2)
        return claimed


class GivesTooMany(ClaimsBent):
    async def claim(self, session_id: SessionId, worker_id: WorkerId, want: int, *args: Any, **more: Any) -> Claimed:
        return await self.straight.claim(session_id, worker_id, want + 1 if want else 0, *args, **more)


class WithholdsWork(ClaimsBent):
    async def claim(self, session_id: SessionId, worker_id: WorkerId, want: int, *args: Any, **more: Any) -> Claimed:
        return await self.straight.claim(session_id, worker_id, min(want, 1), *args, **more)


class EndsLeasesEarly(ClaimsBent):
    async def claim(self, *args: Any, **more: Any) -> Claimed:
        return await super().claim(*args, **more | {"lease_s": 3.0})


class IgnoresPriority(Bent):
    async def submit(self, specs: Sequence[JobSpec]) -> list[Submitted]:
        return await self.straight.submit([msgspec.structs.replace(spec, priority=50) for spec in specs])


class MakesJobsTwice(Bent):
    async def submit(self, specs: Sequence[JobSpec]) -> list[Submitted]:
        submitted = await self.straight.submit(specs)
        return [msgspec.structs.replace(answer, created=True) for answer in submitted]


class ChangesEnds(Bent):
    async def promote(self, limit: int) -> int:
        for record in self.straight._records.values():
            if record.state.status is JobStatus.COMPLETED:
                record.change(status=JobStatus.FAILED)
        return await self.straight.promote(limit)


class KeepsLeasesOfTheClosed(Bent):
    async def close_session(self, session_id: SessionId) -> list[JobId]:
        return []


class LosesAtSubmit(Bent):
    async def submit(self, specs: Sequence[JobSpec]) -> list[Submitted]:
        kept = [spec for spec in specs if spec.job_id != "job-7"]
        await self.straight.submit(kept)
        return [Submitted(job_id=spec.job_id, created=True) for spec in specs]


class RepeatsTokens(ClaimsBent):
    async def claim(self, *args: Any, **more: Any) -> Claimed:
        claimed = await super().claim(*args, **more)
        return msgspec.structs.replace(
            claimed, jobs=tuple(msgspec.structs.replace(job, attempt=1) for job in claimed.jobs)
        )


class ForgetsTokens(Bent):
    """Counts attempts from the start again when a job ends."""

    async def get(self, job_ids: Sequence[JobId]) -> list[Any]:
        return [job and self._bent(job) for job in await self.straight.get(job_ids)]

    def _bent(self, job: Job) -> Job:
        return (
            job
            if job.state.status in ACTIVE
            else Job(spec=job.spec, state=msgspec.structs.replace(job.state, attempt=0))
        )


class DeniesSettling(Bent):
    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        return [not accepted for accepted in await self.straight.settle(settlements)]


class BlamesOthers(Bent):
    async def overdue(self, limit: int) -> list[Lease]:
        leases = await self.straight.overdue(limit)
        return [msgspec.structs.replace(lease, session_id=SessionId("somebody")) for lease in leases]


class CallsAllLost(Bent):
    async def renew(self, session_id: SessionId, held: Sequence[tuple[JobId, int]], **more: Any) -> Renewed:
        renewed = await self.straight.renew(session_id, held, **more)
        return msgspec.structs.replace(renewed, lost=tuple(job_id for job_id, _ in held))


class MiscountsJobs(Bent):
    async def counts(self) -> dict[JobStatus, int]:
        return {status: count + 1 for status, count in (await self.straight.counts()).items()}


class ListsHalf(Bent):
    async def page(self, *args: Any) -> JobPage:
        page = await self.straight.page(*args)
        return msgspec.structs.replace(page, jobs=page.jobs[::2])


STORES: list[tuple[type[Bent], str]] = [
    (ForgetsAJob, ledger.NOTHING_LOST),
    (NeverGivesUpOnAnybody, ledger.NOTHING_LOST),
    (KeepsLeasesOfTheClosed, ledger.NOTHING_LOST),
    (LosesAtSubmit, ledger.NOTHING_LOST),
    (RepeatsTokens, ledger.FENCE),
    (ForgetsTokens, ledger.FENCE),
    (DeniesSettling, ledger.FENCE),
    (BlamesOthers, ledger.LEASE_HOLDS),
    (CallsAllLost, ledger.LEASE_HOLDS),
    (CountsLateOutcomes, ledger.FENCE),
    (RefusesGoodOutcomes, ledger.FENCE),
    (MixesUpResults, ledger.FENCE),
    (LeasesTwice, ledger.ONE_LEASE),
    (GivesTooMany, ledger.FIT),
    (GivesTooMany, worker.SLOTS_HOLD),
    (WithholdsWork, ledger.ORDER),
    (IgnoresPriority, ledger.ORDER),
    (EndsLeasesEarly, ledger.LEASE_HOLDS),
    (MiscountsJobs, people.LISTS_AGREE),
    (ListsHalf, people.LISTS_AGREE),
    (MakesJobsTwice, ledger.ONE_END),
    (ChangesEnds, ledger.ONE_END),
]


def broken_rules(world: World) -> set[str]:
    report = world.run()
    assert all(violation.story for violation in report.violations)
    assert report.ok or f"--seed {report.seed}" in render(report)
    return {violation.rule for violation in report.violations}


@pytest.mark.parametrize(("store", "rule"), STORES)
def test_a_store_that_breaks_a_rule_is_found_out(store: type[Bent], rule: str) -> None:
    world = World(small(3, peace_hours=0.1))
    world.jobs.behind = cast("JobStore", store(world.store.jobs))
    assert rule in broken_rules(world)


def test_work_for_those_who_cannot_do_it_is_found_out(monkeypatch: Patch) -> None:
    monkeypatch.setattr(JobTable, "can_run", lambda *_: True)
    assert ledger.FIT in broken_rules(World(small(3)))


@pytest.mark.parametrize(("kind", "rule"), [("job_timeout", ledger.ONE_END), ("job_claimed", ledger.ONE_LEASE)])
def test_a_gap_in_the_log_is_found_out(monkeypatch: Patch, kind: str, rule: str) -> None:
    world = World(small(3))
    write = world.store.log.add
    monkeypatch.setattr(world.store.log, "add", lambda event: "" if event.kind == kind else write(event))
    assert rule in broken_rules(world)


def test_a_node_out_of_nowhere_is_found_out() -> None:
    world = World(small(3))
    ghost = Heartbeat(facts=NodeFacts(node_id=NodeId("ghost")), boot_id="boot", seq=1, heartbeat_interval_s=3600.0)
    world.timeline.after(
        700_000, lambda: world.network.call("ghost", lambda plane: plane.heartbeat(ghost), ignore, ignore)
    )
    assert checkers.ONE_RECORD in broken_rules(world)


def test_a_job_that_nobody_takes_in_is_found_out() -> None:
    world = World(small(3, peace_hours=0.1))
    world.network.cut.add(people.CALLER)
    assert broken_rules(world) == {TAKEN_IN}


def ignore(*_: object) -> None: ...


def heard_unless_dead(book: NodeBook, *args: Any, hear: Callable[..., Heard] = NodeBook.heard) -> Heard:
    """Do as registries did in which the dead stay dead until somebody restarts something."""
    node = book.get(args[0].facts.node_id)
    return Heard(Verdict.KNOWN, []) if node and node.health is Health.DEAD else hear(book, *args)


def save_all_but_one(recorder: Recorder, node: Node, save: Callable[..., None] = Recorder.save) -> None:
    if node.node_id != "node-3":
        save(recorder, node)


def silent(*_: object, **__: object) -> list[Effect]:
    return []


REGISTRIES: list[tuple[type, str, Any, str]] = [
    (NodeBook, "tick", silent, checkers.SILENCE_SHOWS),
    (NodeBook, "heard", heard_unless_dead, checkers.ALL_BACK),
    (NodeBook, "deregistered", silent, checkers.GONE_STAYS_GONE),
    (Recorder, "save", save_all_but_one, checkers.ONE_RECORD),
    (Boots, "standing", lambda *_, **__: Standing.RIVAL, checkers.NO_GHOSTS),
]


@pytest.mark.parametrize(("owner", "name", "bent", "rule"), REGISTRIES)
def test_a_registry_that_breaks_a_rule_is_found_out(
    monkeypatch: Patch, owner: type, name: str, bent: Any, rule: str
) -> None:
    monkeypatch.setattr(owner, name, bent)
    faults = msgspec.structs.replace(ROUGH, node_away_s=(100, 300))
    assert rule in broken_rules(World(small(3, faults=faults)))


def test_a_registry_without_silence_is_found_out_in_a_world_of_heartbeats_too(monkeypatch: Patch) -> None:
    monkeypatch.setattr(NodeBook, "tick", silent)
    report = run(large_fleet(1, nodes=50))
    assert {violation.rule for violation in report.violations} == {checkers.SILENCE_SHOWS}


def test_a_departed_node_that_an_old_message_brings_back_is_found_out(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Departed, "ignores", lambda *_: False)
    faults = msgspec.structs.replace(ROUGH, node_stops=20, straggling=0.2)
    assert broken_rules(World(small(3, faults=faults))) == {checkers.GONE_STAYS_GONE}


@pytest.mark.parametrize("missing", [filters.draining, filters.late])
def test_a_placement_without_one_of_its_filters_is_found_out(monkeypatch: Patch, missing: filters.Filter) -> None:
    monkeypatch.setattr(filters, "FILTERS", tuple(rule for rule in filters.FILTERS if rule is not missing))
    world = World(small(3, requests_per_minute=200.0, drains_per_hour=60.0))
    assert people.GOOD_CHOICE in broken_rules(world)


def test_a_placement_that_chooses_the_worst_is_found_out(monkeypatch: Patch) -> None:
    def choose_worst(wish: Wish, candidates: Sequence[Candidate], *args: Any) -> Decision:
        decision = choose(wish, candidates, *args)
        worst = [candidate for candidate in candidates if decision.ranked and candidate.key == decision.ranked[-1]]
        return msgspec.structs.replace(decision, chosen=worst[0] if worst else None)

    monkeypatch.setattr(people, "choose", choose_worst)
    assert people.GOOD_CHOICE in broken_rules(World(small(3, requests_per_minute=100.0)))
