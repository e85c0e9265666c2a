"""Workers that die and hang, control planes side by side: every job ends exactly once."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from muster.domain.capability import Capability
from muster.domain.job import JobStatus
from muster.jobs.matching import class_id, match, signature
from muster.stores.valkey import ValkeyStore
from tests.clocks import ManualClock
from tests.contract.stores.world import BIG, SMALL, Hand, again, completed, needing
from tests.valkey_server import KINDS, ValkeyServer
from tests.waiting import eventually

_STEP_S = 0.5  # what a call costs in the clock's time: a lease of 15 s lasts for some 30 calls of others


@pytest.fixture(params=KINDS)
async def planes(
    request: pytest.FixtureRequest, servers: dict[str, ValkeyServer], clock: ManualClock
) -> AsyncIterator[list[ValkeyStore]]:
    """Two control planes on one server."""
    if request.param not in servers:
        servers[request.param] = ValkeyServer(request.param)
        servers[request.param].start()
    stores = [await ValkeyStore.open(servers[request.param].url, clock=clock, avoid_s=5) for _ in range(2)]
    yield stores
    await stores[0].server.execute("FLUSHALL")
    for store in stores:
        await store.close()


class _Fleet:
    """Eight workers, two control planes that sweep, and a clock that moves with what they do."""

    def __init__(self, planes: list[ValkeyStore], clock: ManualClock, total: int) -> None:
        self._planes = planes
        self._clock = clock
        self._total = total
        self.ended: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    async def run(self) -> None:
        await asyncio.gather(self._sweep(), *(self._work(number) for number in range(8)))

    @property
    def _over(self) -> bool:
        return len(self.ended) >= self._total

    async def _work(self, number: int) -> None:
        rolls = random.Random(number)
        generation = 0
        while not self._over:
            generation += 1
            store, capability = self._planes[number % 2], SMALL if number % 3 else BIG
            hand = Hand(store, f"n{number}", capability, session=f"s{number}-{generation}")
            await self._live(await hand.opens(), rolls)

    async def _live(self, hand: Hand, rolls: random.Random) -> None:
        """Claim and finish until it dies, or hangs for so long that its session is given up."""
        held: list[tuple[str, int]] = []
        while not self._over:
            claimed = await hand.claims(rolls.choice((1, 7, 32)), *(completed(*job) for job in held))
            self._clock.advance(_STEP_S)
            self.ended.update(job_id for job_id, _ in held if job_id not in claimed.refused)
            self.faults["refused"] += len(claimed.refused)
            if not claimed.session_known:
                return
            held = [(given.spec.job_id, given.attempt) for given in claimed.jobs]
            fate = rolls.random() if held else 1.0
            if fate < 0.04:
                self.faults["deaths"] += 1
                return
            if fate < 0.08:
                self.faults["hangs"] += 1
                until_ms = self._clock.now_ms() + 20_000
                await eventually(lambda: self._clock.now_ms() > until_ms or self._over)  # noqa: B023 - waited for here

    async def _sweep(self) -> None:
        while not self._over:
            self._clock.advance(_STEP_S)
            for store in self._planes:
                leases = await store.jobs.overdue(100)
                self.faults["expired"] += len(leases)
                lost = [again(lease.spec.job_id, lease.attempt, avoid=lease.worker_id) for lease in leases]
                await store.jobs.settle(lost)
                await store.jobs.promote(100)


async def test_every_job_ends_exactly_once_though_workers_die_and_hang(
    planes: list[ValkeyStore], clock: ManualClock
) -> None:
    total = 2000
    rolls = random.Random(4)
    for first in range(0, total, 50):
        gb = 8 + first // 50 % 7
        numbers = range(first, first + 50)
        await planes[0].jobs.submit([needing(f"j{n}", gb=gb, priority=rolls.choice((20, 50, 80))) for n in numbers])
    fleet = _Fleet(planes, clock, total)
    await fleet.run()
    assert len(fleet.ended) == total
    assert set(fleet.ended.values()) == {1}
    assert (await planes[0].jobs.counts())[JobStatus.COMPLETED] == total
    told = Counter(
        job_id
        for entry in await planes[0].log.read("0", 100_000)
        if entry.event.kind == "job_completed"
        for job_id in entry.event.ids or (entry.event.key,)
    )
    assert told == fleet.ended
    assert min(fleet.faults[kind] for kind in ("deaths", "hangs", "refused", "expired")) > 0


async def test_no_pair_of_class_and_signature_is_missed_by_two_control_planes(planes: list[ValkeyStore]) -> None:
    needs = [needing(f"j{number:02}", gb=number % 20, models=["abc"[number % 3]]) for number in range(60)]
    able = [
        Capability(services=("llm",), models=tuple("abc"[: number % 3 + 1]), gpu_memory_gb=number % 20)
        for number in range(60)
    ]

    async def submit(plane: int) -> None:
        for at in range(plane, len(needs), 2):
            await planes[plane].jobs.submit([needs[at]])

    async def join(plane: int) -> None:
        for at in range(plane, len(able), 2):
            await Hand(planes[plane], f"n{at}", able[at]).opens()

    await asyncio.gather(*(go(plane) for go in (submit, join) for plane in range(2)))
    server = planes[0].server
    for spec in needs:
        members = await server.execute("SMEMBERS", server.key(f"able:{signature(spec.need)}"))
        assert {name.decode() for name in members} == {class_id(has) for has in able if not match(spec.need, has)}
    for has in able:
        entries = await server.execute("ZRANGE", server.key(f"ready:{class_id(has)}"), 0, -1)
        assert {name.decode() for name in entries} == {signature(s.need) for s in needs if not match(s.need, has)}


async def test_a_reply_belongs_to_its_call_however_many_calls_are_given_up(planes: list[ValkeyStore]) -> None:
    store = planes[0]
    hand = await Hand(store, "n").opens()
    await store.jobs.submit([needing(f"j{number}") for number in range(300)])
    chance = random.Random(1)

    async def position(number: int) -> tuple[int, int | None]:
        return number, await store.jobs.position(needing(f"j{number}").job_id)

    given_up = 0
    for round_ in range(20):
        calls: list[asyncio.Task[Any]] = [asyncio.create_task(position(number)) for number in range(round_, 300, 7)]
        calls.append(asyncio.create_task(hand.claims(0)))
        # Now before anything can have come back, now in the middle of the replies.
        await asyncio.wait(calls, timeout=None if round_ % 2 else 0, return_when=asyncio.FIRST_COMPLETED)
        for call in calls:
            if chance.random() < 0.5:
                call.cancel()
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(answer, asyncio.CancelledError):
                given_up += 1
            elif isinstance(answer, tuple):
                number, rank = answer
                assert rank is None or rank <= number
            else:
                assert not isinstance(answer, BaseException), answer
    assert given_up > 0
