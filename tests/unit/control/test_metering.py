"""What is used, at work: over the twin of the store, through faults, restarts and beside another control plane."""

import random
from collections.abc import Mapping, Sequence

import msgspec
import pytest

from muster.access.allowance import Allowance
from muster.access.roles import Right, Role
from muster.access.tokens import Wanted
from muster.control.access import Access
from muster.control.metering import Metering
from muster.domain.job import JobSpec
from muster.domain.usage import By, Spent, Sum, Use
from muster.errors import InvalidInput, ModelNotFound, QuotaExceeded, StoreUnavailable
from muster.ids import JobId
from muster.stores.memory import MemoryStore
from muster.stores.memory.usage import MemoryUsage
from muster.wire import Outcome, OutcomeKind
from tests.clocks import ManualClock
from tests.planes import PlaneUnderTest

DAY_S = 86_400.0


class Away(MemoryUsage):
    """A store whose writes arrive, or not, and whose answer is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.lose: str | None = None

    async def add(self, batch_id: str, sums: Sequence[Sum], spent: Mapping[str, Spent], at_ms: int) -> None:
        if self.lose != "request":
            await super().add(batch_id, sums, spent, at_ms)
        if self.lose is not None:
            raise StoreUnavailable("away")


class Plane:
    """A control plane's share of this, beside others on one store."""

    def __init__(self, store: MemoryStore, usage: MemoryUsage, clock: ManualClock, name: str = "p1") -> None:
        self.access = Access(
            store.tokens, store.bus, clock, random.Random(name), bootstrap="boot", requests_per_s_max=0.0
        )
        self.metering = Metering(usage, store.jobs, self.access, clock, plane_id=name, retention_s=30 * DAY_S)

    async def start(self) -> None:
        await self.access.start()
        await self.metering.start()

    async def stop(self) -> None:
        await self.metering.stop()
        await self.metering.stop()
        await self.access.stop()

    async def token(self, **limits: object) -> tuple[str, bytes]:
        allowance = Allowance(**limits)  # type: ignore[arg-type]  # a test's own shorthand
        token, text = await self.access.create(Wanted(name="shop", role=Role.CLIENT, allowance=allowance))
        return token.token_id, text.encode()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def usage() -> Away:
    return Away()


@pytest.fixture
def one(store: MemoryStore, usage: Away, clock: ManualClock) -> Plane:
    return Plane(store, usage, clock)


def use(token: str, tokens: int = 5, model: str = "m") -> Use:
    return Use(token=token, model=model, prompt_tokens=1, completion_tokens=tokens - 1, energy_mwh=1000)


async def test_a_restart_keeps_budgets_and_sums(
    one: Plane, store: MemoryStore, usage: Away, clock: ManualClock
) -> None:
    await one.start()
    token, shown = await one.token(tokens_per_month=10)
    one.metering.take(use(token, 10))
    await one.stop()

    again = Plane(store, usage, clock, "p2")
    await again.start()
    with pytest.raises(QuotaExceeded):
        again.access.admit(shown, Right.CHAT)
    assert [sum_.completion_tokens for sum_ in await again.metering.read(None, None, [By.WHOSE])] == [9]
    await again.stop()


async def test_control_planes_share_budgets_after_a_sync(
    one: Plane, store: MemoryStore, usage: Away, clock: ManualClock
) -> None:
    other = Plane(store, usage, clock, "p2")
    token, shown = await one.token(tokens_per_day=10)
    for plane in (one, other):
        await plane.start()
    one.metering.take(use(token, 10))
    await one.metering.sync()
    await other.metering.sync()
    with pytest.raises(QuotaExceeded):
        other.access.admit(shown, Right.CHAT)
    for plane in (one, other):
        await plane.stop()


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_what_could_not_be_written_is_written_once_when_the_store_is_back(
    one: Plane, usage: Away, lost: str
) -> None:
    token, _ = await one.token(tokens_per_day=100)
    one.metering.take(use(token))
    usage.lose = lost
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await one.metering.sync()
        one.metering.take(use(token))
    usage.lose = None
    await one.metering.sync()
    await one.metering.sync()

    assert [sum_.requests for sum_ in await one.metering.read(None, None, [])] == [3]
    account = one.access.account_of(token)
    assert account is not None
    assert account.tokens_today(0) == 15


async def test_a_stop_while_the_store_is_away_ends_all_the_same(one: Plane, usage: Away) -> None:
    await one.start()
    one.metering.take(use("anonymous"))
    usage.lose = "request"
    await one.stop()


async def test_counters_are_bounded(one: Plane) -> None:
    for number in range(1100):
        one.metering.take(use("anonymous", model=f"m{number}"))
    await one.metering.sync()

    tokens, joules = one.metering.metrics()
    samples = {labels: value for _, labels, value in tokens.samples}
    assert len(samples) == 1002
    assert samples["_other", "_other", "completion"] == 4 * 600
    assert sum(value for _, _, value in joules.samples) == pytest.approx(1100 * 3600)


async def test_sums_that_wait_for_the_store_are_bounded(one: Plane) -> None:
    for number in range(10_050):
        one.metering.take(use("anonymous", model=f"m{number}"))
    await one.metering.sync()

    found = await one.metering.read(None, None, [By.MODEL])
    assert len(found) == 10_001
    assert next(sum_ for sum_ in found if sum_.model == "_other").requests == 50


async def test_what_is_old_is_forgotten_by_who_leads(one: Plane, clock: ManualClock) -> None:
    clock.advance(100 * DAY_S)
    one.metering.take(use("anonymous"))
    await one.metering.sync()
    clock.advance(31 * DAY_S)
    await one.metering.sync()

    now_ms = clock.now_ms()
    assert await one.metering.read(now_ms - round(100 * DAY_S * 1000), None, []) == []


async def test_a_time_that_makes_no_sense_is_refused(one: Plane, clock: ManualClock) -> None:
    now_ms = clock.now_ms()
    for since_ms, until_ms, by in ((now_ms, now_ms - 10**9, []), (0, now_ms + 10**12, []), (0, 10**12, [By.HOUR])):
        with pytest.raises(InvalidInput, match="`from` must be before"):
            await one.metering.read(since_ms, until_ms, by)


async def test_who_asks_from_tomorrow_on_is_told_nothing(one: Plane, clock: ManualClock) -> None:
    assert await one.metering.read(clock.now_ms() + 10**9, None, []) == []


# --- jobs -------------------------------------------------------------------------------------------------------------


async def job_of(plane: PlaneUnderTest, token: str | None, model: str = "m") -> JobId:
    spec = JobSpec(job_id=JobId(""), service_required="simulation", payload={"model": model}, submitted_by=token)
    (submitted,) = await plane.jobs.submit([spec])
    return submitted.job_id


async def test_a_job_is_charged_to_who_submitted_it(plane: PlaneUnderTest) -> None:
    token, _ = await plane.access.create(Wanted(name="boss", role=Role.ADMIN))
    await plane.open_session(models=("m",))
    for owner, result in (
        (token.token_id, b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5},"model":"x"}'),
        (None, b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}'),
        (None, b'{"usage":"of something else"}'),
        (None, b'{"usage":{"disk":1}}'),
        (None, b'{"images":[]}'),
    ):
        await job_of(plane, owner)
        (job,) = (await plane.claim()).jobs
        done = Outcome(
            job_id=job.spec.job_id, attempt=job.attempt, kind=OutcomeKind.COMPLETED, result=msgspec.Raw(result)
        )
        await plane.claim(want=0, done=(done,))
    await plane.metering.sync()

    found = await plane.metering.read(None, None, [By.WHOSE, By.MODEL])
    assert sorted((sum_.token, sum_.model, sum_.prompt_tokens, sum_.completion_tokens) for sum_ in found) == sorted(
        [("anonymous", "m", 1, 1), (token.token_id, "m", 7, 5)]
    )


async def test_a_job_has_no_more_priority_than_its_token(plane: PlaneUnderTest) -> None:
    await plane.access.create(Wanted(name="boss", role=Role.ADMIN))
    token, _ = await plane.access.create(Wanted(name="shop", role=Role.CLIENT, allowance=Allowance(priority=20)))
    specs = [
        JobSpec(
            job_id=JobId(""),
            service_required="simulation",
            payload={},
            submitted_by=owner,
            priority=priority,
            workflow_priority=of_workflow,
        )
        for owner in (token.token_id, None)
        for priority, of_workflow in ((70, 90), (5, None), (50, None))
    ]
    jobs = await plane.jobs.get_many([submitted.job_id for submitted in await plane.jobs.submit(specs)])

    assert [(job.spec.priority, job.spec.workflow_priority) for job in jobs] == [
        *((20, 20), (5, None), (20, None)),
        *((70, 90), (5, None), (50, None)),
    ]


async def test_a_job_with_a_model_that_its_token_may_not_use_is_refused(plane: PlaneUnderTest) -> None:
    await plane.access.create(Wanted(name="boss", role=Role.ADMIN))
    token, _ = await plane.access.create(Wanted(name="shop", role=Role.CLIENT, allowance=Allowance(models=("small*",))))

    await job_of(plane, token.token_id, "small-1")
    with pytest.raises(ModelNotFound, match="may not use it"):
        await job_of(plane, token.token_id, "large")
    with pytest.raises(InvalidInput, match="name one"):
        await job_of(plane, token.token_id, "")
    await job_of(plane, None, "large")
