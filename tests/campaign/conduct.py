"""One campaign from start to end: the fleet, its customers, what befalls it, who watches, and the verdict."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.campaign import ledger as rules
from tests.campaign import orders, schedule
from tests.campaign.customers import Customers
from tests.campaign.fleet import UNANSWERED, Fleet, Shape
from tests.campaign.ledger import Ledger, Violation
from tests.campaign.pace import LOOK_S, pause, until
from tests.campaign.recovery import recovered
from tests.campaign.report import Hit, Report, rates

_PAGE = 1000
_READERS = 8
_END_S = 300.0  # for what is left to do when nothing befalls the fleet any more
Say = Callable[[str], None]


class Plan(Struct, frozen=True, kw_only=True):
    """`calm_s` are before the first fault and after the last; `every_s` is between two, in the mean."""

    seed: int
    jobs: int
    shape: Shape
    faults: int
    calm_s: float
    every_s: float
    longest_s: float = 12.0
    submitters: int = 4
    command: str = ""

    @property
    def seconds(self) -> float:
        return self.faults * self.every_s + 2 * self.calm_s


class Campaign:
    def __init__(self, plan: Plan, folder: Path, say: Say) -> None:
        self.plan = plan
        self._say = say
        self._fleet = Fleet(folder, plan.shape)
        self._customers = Customers(self._fleet)
        self._live = Ledger()
        self._hits: list[Hit] = []
        self._marks_ms: list[tuple[str, int]] = []
        self._began_s = 0.0
        self._one_at_a_time: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self) -> Report:
        try:
            self._say(f"starting {_shape_text(self.plan.shape)}")
            await self._fleet.start()
            return await self._run()
        finally:
            await self._fleet.stop()

    async def _run(self) -> Report:
        plan = self.plan
        began = datetime.now(UTC).isoformat(timespec="seconds")
        jobs = orders.draw(plan.seed, plan.jobs, worker_seconds=plan.shape.workers * plan.seconds)
        self._began_s = asyncio.get_running_loop().time()
        watcher = asyncio.create_task(self._watch())
        try:
            self._mark("before faults")
            async with asyncio.TaskGroup() as group:
                group.create_task(self._customers.submit_all(jobs, submitters=plan.submitters, over_s=plan.seconds))
                await self._befall()
                self._mark("after faults")
            await self._all_ended()
            self._mark("end")
            ailing = await self._ailing_at_last()
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        return await self._verdict(began, ailing)

    # --- what befalls it ----------------------------------------------------------------------------------------------

    async def _befall(self) -> None:
        plan = self.plan
        faults = schedule.draw(
            plan.seed,
            self._fleet.targets,
            count=plan.faults,
            from_s=plan.calm_s,
            every_s=plan.every_s,
            longest_s=plan.longest_s,
        )
        await until(self._began_s + faults[0].at_s)
        self._mark("during faults")
        async with asyncio.TaskGroup() as group:
            for number, fault in enumerate(faults):
                await until(self._began_s + fault.at_s)
                group.create_task(self._hurt(fault, f"probe-{plan.seed}-{number:03}"))

    async def _hurt(self, fault: schedule.Fault, probe: str) -> None:
        async with self._one_at_a_time[fault.target]:  # to mend a broker takes longer than was drawn
            began_s = self._now_s()
            await self._fleet.hit(fault)
            await until(self._began_s + began_s + fault.lasts_s)
            await self._fleet.mend(fault)
            ended_s = self._now_s()
        done = await recovered(self._fleet, self._customers, fault, probe)
        recovery_s = round(self._now_s() - ended_s, 2) if done else None
        self._hits.append(Hit(fault=fault, began_s=began_s, ended_s=ended_s, recovery_s=recovery_s))
        self._say(
            f"{began_s:6.1f} s  {fault.kind} {fault.target} for {ended_s - began_s:.1f} s,"
            f" recovered after {recovery_s} s; {len(self._live.ended_at_ms)} jobs have ended"
        )

    # --- who watches --------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Read the log as it grows, from whichever control plane answers, and say at once what must not be."""
        after, turn, told = "0", 0, 0
        while True:
            turn += 1
            plane = self._fleet.plane_names[turn % self.plan.shape.planes]
            page = await self._page(plane, after)
            self._live.feed(page)
            after = page[-1]["id"] if page else after
            for violation in self._live.violations[told:]:
                self._say(f"VIOLATION {violation.rule}: {violation.job_id} {violation.what}")
            told = len(self._live.violations)
            if len(page) < _PAGE:
                await pause(LOOK_S)

    async def _page(self, plane: str, after: str) -> list[dict[str, Any]]:
        try:
            status, body = await self._fleet.ask(plane, "GET", f"/api/events?limit={_PAGE}&after={after}")
        except UNANSWERED:
            return []
        return list(body["events"]) if status == 200 else []

    async def _all_ended(self) -> None:
        deadline_s = self._now_s() + _END_S
        while self._now_s() < deadline_s:
            lives = self._live.lives
            if all(job_id in lives and lives[job_id].end for job_id in self._customers.accepted):
                return
            await pause(LOOK_S)

    async def _ailing_at_last(self) -> list[str]:
        """Return what is not well; all has some time to become so."""
        deadline_s = self._now_s() + _END_S
        while (ailing := await self._fleet.ailing()) and self._now_s() < deadline_s:
            await pause(LOOK_S)
        return ailing

    # --- the verdict --------------------------------------------------------------------------------------------------

    async def _verdict(self, began: str, ailing: list[str]) -> Report:
        customers = self._customers
        log = await self._whole_log()
        jobs = await self._jobs(sorted(customers.asked | set(log.lives)))
        violations = [
            *log.violations,
            *rules.audit(log, customers.accepted, customers.asked, jobs),
            *rules.forgotten(self._live, log),
            *(Violation(rule="refused", job_id=job_id, what=why) for job_id, why in customers.refused.items()),
        ]
        return Report(
            seed=self.plan.seed,
            command=self.plan.command,
            began=began,
            minutes=round(self.plan.seconds / 60, 2),
            shape=f"{self.plan.jobs} jobs, {_shape_text(self.plan.shape)}",
            store="Valkey, append-only file synced always: what was answered survives a kill of the server",
            asked=len(customers.asked),
            accepted=len(customers.accepted),
            tries=customers.tries,
            answers_lost=customers.known_already,
            cancels=customers.cancelled,
            ends=dict(Counter(job["status"] for job in jobs.values())),
            events=dict(log.kinds),
            hits=tuple(sorted(self._hits, key=lambda hit: hit.began_s)),
            rates=rates(log.ended_at_ms, self._marks_ms),
            violations=tuple(violations),
            ailing=tuple(ailing),
        )

    async def _whole_log(self) -> Ledger:
        """Read the log again from its first event: it must tell what it told while things happened."""
        log, after = Ledger(), "0"
        plane = self._fleet.plane_names[0]
        while page := await self._page(plane, after):
            log.feed(page)
            after = page[-1]["id"]
        return log

    async def _jobs(self, job_ids: Iterable[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        left = iter(job_ids)

        async def read(plane: str) -> None:
            for job_id in left:
                status, body = await self._fleet.ask(plane, "GET", f"/api/jobs/{job_id}")
                if status == 200:
                    found[job_id] = body["job"]

        names = self._fleet.plane_names
        await asyncio.gather(*(read(names[number % len(names)]) for number in range(_READERS)))
        return found

    # --- time ---------------------------------------------------------------------------------------------------------

    def _now_s(self) -> float:
        return round(asyncio.get_running_loop().time() - self._began_s, 2)

    def _mark(self, name: str) -> None:
        self._marks_ms.append((name, round(time.time() * 1000)))


def _shape_text(shape: Shape) -> str:
    return f"{shape.planes} control planes, {shape.workers} workers in {shape.agents} agents"
