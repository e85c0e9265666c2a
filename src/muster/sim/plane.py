"""The control plane of a simulated world: the real services on the store in memory, driven without a loop."""

from collections.abc import Coroutine, Sequence
from contextlib import suppress
from random import Random
from typing import Any, TypeVar

from muster.commands.book import CommandBook
from muster.control.commands import CommandService
from muster.control.fleet.fleet import Fleet
from muster.control.fleet.peers import Peers
from muster.control.ingest import Ingest
from muster.control.jobs.service import JobService, JobStores
from muster.control.leader import Leader
from muster.control.recorder import Recorder
from muster.control.sweep import Sweep
from muster.domain.job import Job, JobSpec, JobStatus
from muster.errors import StoreUnavailable
from muster.ids import JobId, NodeId
from muster.jobs.explain import Explanation
from muster.jobs.retry import RetryPolicy
from muster.ports import JobPage, Submitted
from muster.registry.book import NodeBook
from muster.registry.lateness import Limits
from muster.sim.bus import SimBus
from muster.sim.timeline import Timeline
from muster.sim.watched import WatchedJobs
from muster.stores.memory import MemoryStore
from muster.wire import (
    ClaimReply,
    ClaimRequest,
    CloseSession,
    Deregistration,
    Heartbeat,
    HeartbeatReply,
    OpenSession,
    ProgressReports,
    Registration,
    RegistrationReply,
    RenewReply,
    RenewRequest,
    SessionReply,
)

T = TypeVar("T")

LINK = "simulated"
LIMITS = Limits()
LEASE_S = 30.0
TICK_MS = 2_000
_PAYLOAD_BYTES_MAX = 10_000
_FORGET_AFTER_S = 3600.0
_KEEP_S = 1e9  # nothing is purged: every job is asked for at the end
_KEEP_MAX = 1_000_000


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits. One that does would need time to pass, which here only the timeline may do."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} waits: it cannot run in virtual time")


class Plane:
    """One life of a control plane: it begins with what the store has, and what it did not write is lost with it."""

    def __init__(
        self, timeline: Timeline, rng: Random, jobs: WatchedJobs, store: MemoryStore, bus: SimBus, plane_id: str
    ) -> None:
        self._timeline = timeline
        self.plane_id = plane_id
        self.judged_since_ms = timeline.now_ms()  # silence since then shows
        self._recorder = Recorder(store.nodes, store.log)
        self.fleet = Fleet(NodeBook(LIMITS, _FORGET_AFTER_S), self._recorder, timeline)
        self.fleet.load(finish(store.nodes.load()))
        self.peers = Peers(self.fleet, self._recorder, store.nodes, bus, timeline, plane_id)
        self._leader = Leader(store.leases, timeline, plane_id)
        commands = CommandService(CommandBook(), store.commands, store.bus, self.fleet, self._recorder, timeline, rng)
        self._ingest = Ingest(self.fleet, commands, self._recorder, timeline, link=LINK)
        policy = RetryPolicy()
        self._service = JobService(
            JobStores(queue=jobs, index=jobs, upkeep=jobs, lines=jobs.behind),
            store.bus,
            timeline,
            rng,
            lease_s=LEASE_S,
            retry_policy=policy,
            payload_bytes_max=_PAYLOAD_BYTES_MAX,
            payload_checks={},
        )
        self._sweep = Sweep(
            self.fleet,
            jobs,
            jobs,
            timeline,
            rng,
            every_s=TICK_MS / 1000,
            retry_policy=policy,
            retention_s=_KEEP_S,
            ended_max=_KEEP_MAX,
            leads=lambda: self.leads,
        )

    @property
    def leads(self) -> bool:
        return self._leader.leads

    # --- what agents and workers call --------------------------------------------------------------------------------

    def register(self, message: Registration) -> RegistrationReply:
        return finish(self._ingest.register(message))

    def heartbeat(self, message: Heartbeat) -> HeartbeatReply:
        return finish(self._ingest.heartbeat(message))

    def deregister(self, message: Deregistration) -> None:
        finish(self._ingest.deregister(message))

    def open_session(self, message: OpenSession) -> SessionReply:
        return finish(self._service.open_session(message))

    def claim(self, message: ClaimRequest) -> ClaimReply:
        return finish(self._service.claim(message))

    def renew(self, message: RenewRequest) -> RenewReply:
        return finish(self._service.renew(message))

    def report_progress(self, message: ProgressReports) -> RenewReply:
        return finish(self._service.report_progress(message))

    def close_session(self, message: CloseSession) -> None:
        finish(self._service.close_session(message))

    # --- what people call --------------------------------------------------------------------------------------------

    def submit(self, specs: Sequence[JobSpec]) -> list[Submitted]:
        return finish(self._service.submit(specs))

    def cancel(self, job_id: JobId) -> Job:
        return finish(self._service.cancel(job_id))

    def retry(self, job_id: JobId) -> Job:
        return finish(self._service.retry(job_id))

    def counts(self) -> dict[JobStatus, int]:
        return finish(self._service.counts())

    def page(self, cursor: str | None, limit: int) -> JobPage:
        return finish(self._service.page(None, cursor, limit))

    def explain(self, job_id: JobId) -> Explanation:
        return finish(self._service.explain(job_id))

    def drain(self, node_id: NodeId, *, draining: bool) -> None:
        self.fleet.carry_out(self.fleet.book.set_draining(node_id, self._timeline.now_ms(), draining=draining))

    # --- what time does ----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what all of it does by its own timers; what the store does not take waits."""
        judged = self.fleet.judges
        finish(self._leader.renew())
        for step in (self.peers.beat, self._sweep.sweep, self._recorder.flush):
            with suppress(StoreUnavailable):
                finish(step())
        if not (judged and self.fleet.judges):
            self.judged_since_ms = self._timeline.now_ms()
