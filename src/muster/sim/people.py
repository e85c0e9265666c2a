"""What people do to the fleet: submit jobs, cancel and revive them, drain nodes, send chat requests."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from muster.domain.job import ACTIVE, Hardware, JobSpec, JobStatus, Requirements
from muster.errors import InvalidTransition, NodeNotFound
from muster.ids import JobId, NodeId
from muster.placement.choose import choose
from muster.placement.scores import Strategy, free_slots
from muster.placement.wish import Wish
from muster.sim.agent import MODEL, SimAgent
from muster.sim.chance import spread_ms
from muster.sim.findings import Findings
from muster.sim.ledger import Ledger
from muster.sim.network import Network
from muster.sim.plane import TICK_MS, Plane
from muster.sim.scenario import Scenario
from muster.sim.timeline import Timeline

GOOD_CHOICE = "a request goes to a node that can take it"
LISTS_AGREE = "lists and counts show what is there"

CALLER = "people"
_RETRY_MS = 3_000
_REVIVE_RATE = 0.3
_LOOKS_PER_MINUTE = 2
_PAGE = 30
_REQUEST_S = (0.2, 20.0)
_GPU_SIZES_GB = (None, None, 16.0)
_ZONES = (None, None, "north")


class People:
    def __init__(
        self,
        scenario: Scenario,
        timeline: Timeline,
        network: Network,
        ledger: Ledger,
        findings: Findings,
        rng: Random,
        peace_ms: int,
    ) -> None:
        self._scenario = scenario
        self._timeline = timeline
        self._network = network
        self._ledger = ledger
        self._findings = findings
        self._rng = rng
        self._peace_ms = peace_ms
        self._in_flight: Counter[str] = Counter()
        self._turn = 0
        self.counts: Counter[str] = Counter()
        self.choices = 0
        self.unsubmitted = scenario.jobs

    def begin(self, agents: Sequence[SimAgent]) -> None:
        peace_s = (self._peace_ms - self._timeline.now_ms()) / 1000
        for number in range(self._scenario.jobs):
            self._timeline.after(spread_ms(self._rng, (0, 0.8 * peace_s)), self._submission(self._spec(number)))
        for _ in range(round(self._scenario.cancel_rate * self._scenario.jobs)):
            self._timeline.after(spread_ms(self._rng, (0, peace_s)), self._meddle)
        for _ in range(round(self._scenario.drains_per_hour * self._scenario.hours)):
            node_id = self._rng.choice(agents).node_id
            self._timeline.after(spread_ms(self._rng, (0, 0.8 * peace_s)), partial(self._drain, node_id))
        if self._scenario.requests_per_minute:
            self._request()
        for _ in range(round(_LOOKS_PER_MINUTE * peace_s / 60)):
            self._timeline.after(spread_ms(self._rng, (0, peace_s)), self._look)

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _spec(self, number: int) -> JobSpec:
        rng, scenario = self._rng, self._scenario
        zone = rng.choice(_ZONES)
        return JobSpec(
            job_id=JobId(f"job-{number}"),
            service_required="simulation",
            payload={
                "duration_ms": spread_ms(rng, scenario.job_s),
                "fail_rate": scenario.fail_rate,
                "retry_rate": 0.8 * scenario.fail_rate,
            },
            requirements=Requirements(
                hardware=Hardware(gpu_memory_gb=rng.choice(_GPU_SIZES_GB)), labels={"zone": zone} if zone else {}
            ),
            priority=rng.choice((10, 50, 50, 90)),
            timeout_s=rng.choice((20.0, 300.0, 300.0, 300.0)),
        )

    def _submission(self, spec: JobSpec) -> Callable[[], None]:
        """Submit until it is heard; the id makes that safe."""

        def submit() -> None:
            self._network.call(CALLER, lambda plane: plane.submit([spec]), done, try_again)

        def done(_: object) -> None:
            self.unsubmitted -= 1

        def try_again() -> None:
            self._timeline.after(_RETRY_MS, submit)

        return submit

    def _meddle(self) -> None:
        """Cancel a job that waits or runs, or revive one that failed."""
        if self._rng.random() < _REVIVE_RATE:
            self._pick({JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED}, "jobs revived", Plane.retry)
        else:
            self._pick({JobStatus.PENDING, *ACTIVE}, "jobs cancelled", Plane.cancel)

    def _pick(self, statuses: set[JobStatus], kind: str, act: Callable[[Plane, JobId], object]) -> None:
        found = self._ledger.with_status(statuses)
        if not found:
            return
        job_id = self._rng.choice(found)

        def serve(plane: Plane) -> None:
            try:
                act(plane, job_id)
            except InvalidTransition:
                return  # it ended, or was revived, in the meantime
            self.counts[kind] += 1

        self._network.call(CALLER, serve, _ignore, _nothing)

    def _look(self) -> None:
        """Count the jobs, page through them all, and ask why one of them waits."""

        def serve(plane: Plane) -> None:
            known = self._ledger.job_ids()
            counted = sum(plane.counts().values())
            if counted != len(known):
                self._findings.broken(LISTS_AGREE, "store", f"counts {counted} jobs of {len(known)}")
            page = plane.page(None, _PAGE)
            listed = [job.job_id for job in page.jobs]
            while page.next_cursor is not None:
                page = plane.page(page.next_cursor, _PAGE)
                listed += [job.job_id for job in page.jobs]
            if sorted(listed) != sorted(known):
                self._findings.broken(LISTS_AGREE, "store", f"lists {len(listed)} jobs of {len(known)}")
            for job_id in self._ledger.with_status({JobStatus.PENDING})[:1]:
                if not plane.explain(job_id).summary:
                    self._findings.broken(LISTS_AGREE, job_id, "waits and nobody can say why")

        self._network.call(CALLER, serve, _ignore, _nothing)

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _drain(self, node_id: NodeId) -> None:
        self._set_draining(node_id, draining=True)
        left_ms = max(0, self._peace_ms - self._timeline.now_ms())
        self._timeline.after(
            min(left_ms, spread_ms(self._rng, (30, 300))), lambda: self._set_draining(node_id, draining=False)
        )

    def _set_draining(self, node_id: NodeId, *, draining: bool) -> None:
        def serve(plane: Plane) -> None:
            try:
                plane.drain(node_id, draining=draining)
            except NodeNotFound:
                return  # it left; when it comes back it is as new
            self.counts["nodes drained"] += draining

        def try_again() -> None:
            self._timeline.after(_RETRY_MS, lambda: self._set_draining(node_id, draining=draining))

        self._network.call(CALLER, serve, _ignore, try_again)

    # --- chat requests -----------------------------------------------------------------------------------------------

    def _request(self) -> None:
        if self._timeline.now_ms() >= self._peace_ms:
            return
        plane = self._network.some_plane()
        if plane is not None:
            self._place(plane)
        self._timeline.after(round(self._rng.expovariate(self._scenario.requests_per_minute) * 60_000), self._request)

    def _place(self, plane: Plane) -> None:
        """Choose as the gateway does, and hold the choice against the registry's own records."""
        strategy = self._rng.choice((Strategy.LEAST_LOADED, Strategy.ROUND_ROBIN))
        self._turn += 1
        candidates = plane.fleet.candidates()
        decision = choose(Wish(model=MODEL), candidates, self._in_flight, strategy, self._turn, self._rng)
        chosen = decision.chosen
        if chosen is None:
            return
        self.choices += 1
        node = plane.fleet.node(chosen.node_id)
        if node.draining or not node.connected:
            self._findings.broken(GOOD_CHOICE, node.node_id, "is draining" if node.draining else "is disconnected")
        if plane.fleet.book.is_late(node, self._timeline.now_ms() - 2 * TICK_MS):
            self._findings.broken(GOOD_CHOICE, node.node_id, "is late")
        if strategy is Strategy.LEAST_LOADED and free_slots(chosen, self._in_flight) <= 0:
            by_key = {candidate.key: candidate for candidate in candidates}
            if any(free_slots(by_key[key], self._in_flight) > 0 for key in decision.ranked):
                self._findings.broken(GOOD_CHOICE, node.node_id, "has no slot free while another one has")
        self._in_flight[chosen.key] += 1
        self._timeline.after(spread_ms(self._rng, _REQUEST_S), lambda: self._in_flight.subtract([chosen.key]))


def _nothing() -> None:
    """Let it be: people do not insist."""


def _ignore(_: object) -> None:
    """Take no notice of an answer."""
