"""What was used, summed by hour and day, and what each token has had."""

from datetime import UTC, datetime

from muster.access.allowance import Allowance
from muster.access.roles import Role
from muster.access.tokens import Token, digest_of
from muster.domain.usage import Spent, Sum, day_of, hour_of
from tests.contract.stores.world import Store

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NOON_MS = round(datetime(2024, 3, 2, 12, 30, tzinfo=UTC).timestamp() * 1000)
FIRST_MS = round(datetime(2024, 3, 1, 12, 30, tzinfo=UTC).timestamp() * 1000)


def one(at_ms: int = NOON_MS, token: str = "t", model: str = "org/model:8b|q4", requests: int = 1) -> Sum:
    return Sum(
        at_ms=hour_of(at_ms),
        token=token,
        model=model,
        requests=requests,
        estimated=1,
        prompt_tokens=2,
        completion_tokens=3,
        worker_ms=4,
    )


async def test_sums_are_kept_by_hour_and_by_day(store: Store) -> None:
    later = NOON_MS + HOUR_MS
    await store.usage.add("b1", [one(), one(later), one(token="u")], {}, NOON_MS)
    await store.usage.add("b2", [one(requests=4)], {}, NOON_MS)

    hours = await store.usage.read(hour_of(NOON_MS), later + HOUR_MS, hourly=True)
    assert sorted((sum_.at_ms, sum_.token, sum_.model, sum_.requests) for sum_ in hours) == [
        (hour_of(NOON_MS), "t", "org/model:8b|q4", 5),
        (hour_of(NOON_MS), "u", "org/model:8b|q4", 1),
        (hour_of(later), "t", "org/model:8b|q4", 1),
    ]
    days = await store.usage.read(day_of(NOON_MS), NOON_MS + DAY_MS, hourly=False)
    assert sorted((sum_.at_ms, sum_.token, sum_.requests, sum_.completion_tokens) for sum_ in days) == [
        (day_of(NOON_MS), "t", 6, 9),
        (day_of(NOON_MS), "u", 1, 3),
    ]


async def test_a_read_has_its_beginning_in_it_and_its_end_not(store: Store) -> None:
    await store.usage.add("b1", [one(), one(NOON_MS + HOUR_MS)], {}, NOON_MS)

    first, second = hour_of(NOON_MS), hour_of(NOON_MS) + HOUR_MS
    assert [sum_.at_ms for sum_ in await store.usage.read(first, second, hourly=True)] == [first]
    assert [sum_.at_ms for sum_ in await store.usage.read(second, second + 1, hourly=True)] == [second]


async def test_a_batch_that_comes_again_counts_once(store: Store) -> None:
    spent = {"t": Spent(tokens_today=5, tokens_this_month=5)}
    for _ in range(3):
        await store.usage.add("b1", [one()], spent, NOON_MS)

    assert [sum_.requests for sum_ in await store.usage.read(0, NOON_MS, hourly=True)] == [1]
    assert await store.usage.spent(NOON_MS) == spent


async def test_many_sums_of_one_batch_are_all_kept(store: Store) -> None:
    await store.usage.add("b1", [one(model=f"m{number}") for number in range(450)], {}, NOON_MS)

    assert len(await store.usage.read(0, NOON_MS, hourly=True)) == 450


async def test_what_was_had_is_that_of_the_day_and_of_the_month(store: Store) -> None:
    await store.usage.add("b1", [], {"t": Spent(tokens_today=5, tokens_this_month=5)}, FIRST_MS)
    await store.usage.add("b2", [], {"t": Spent(tokens_today=7, tokens_this_month=7)}, NOON_MS)

    assert await store.usage.spent(FIRST_MS) == {"t": Spent(tokens_today=5, tokens_this_month=12)}
    assert await store.usage.spent(NOON_MS) == {"t": Spent(tokens_today=7, tokens_this_month=12)}
    assert await store.usage.spent(NOON_MS + DAY_MS) == {"t": Spent(tokens_this_month=12)}
    assert await store.usage.spent(NOON_MS + 31 * DAY_MS) == {}


async def test_what_is_old_is_forgotten_hours_before_days(store: Store) -> None:
    await store.usage.add("b1", [one(FIRST_MS), one(NOON_MS)], {}, NOON_MS)

    await store.usage.forget(hour_of(NOON_MS), 0)
    assert [sum_.at_ms for sum_ in await store.usage.read(0, NOON_MS, hourly=True)] == [hour_of(NOON_MS)]
    assert len(await store.usage.read(0, NOON_MS, hourly=False)) == 2
    await store.usage.forget(hour_of(NOON_MS), day_of(NOON_MS))
    assert [sum_.at_ms for sum_ in await store.usage.read(0, NOON_MS, hourly=False)] == [day_of(NOON_MS)]


async def test_a_changed_token_takes_the_place_of_the_old_one_and_revives_none(store: Store) -> None:
    token = Token(token_id="a", name="a", role=Role.CLIENT, secret_sha256=digest_of("s"), created_at_ms=7)
    changed = Token(
        token_id="a",
        name="a",
        role=Role.CLIENT,
        secret_sha256=digest_of("s"),
        created_at_ms=7,
        allowance=Allowance(models=("x*",), tokens_per_day=5),
    )
    assert not await store.tokens.change(changed)
    await store.tokens.add(token)
    assert await store.tokens.change(changed)
    assert await store.tokens.load() == [changed]
