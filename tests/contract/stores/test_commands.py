"""Commands as they are kept: never a step back, whoever writes last, and only so many that have ended."""

import asyncio
from itertools import permutations

from muster.domain.command import CommandStatus
from muster.domain.job import Progress
from tests.contract.stores.world import COMMANDS_ENDED_MAX, Store
from tests.unit.commands.makers import command

STEPS = [
    command(),
    command(status=CommandStatus.SENT),
    command(status=CommandStatus.ACKED),
    command(status=CommandStatus.ACKED, progress=Progress(fraction=0.1, at_ms=1_700_000_000_001)),
    command(status=CommandStatus.ACKED, progress=Progress(fraction=0.2, at_ms=1_700_000_000_002)),
    command(status=CommandStatus.EXPIRED, ended_at_ms=7, error="no answer"),
    command(status=CommandStatus.DONE, ended_at_ms=6, result={"text": "é|", "list": [1, None]}),
]


async def test_nothing_is_kept_at_first(store: Store) -> None:
    assert await store.commands.load() == []
    await store.commands.save([])
    assert await store.commands.load() == []


async def test_every_step_is_kept_as_it_is(store: Store) -> None:
    for step in STEPS:
        await store.commands.save([step])
        assert await store.commands.load() == [step]


async def test_in_whatever_order_steps_are_written_the_furthest_stays(store: Store) -> None:
    for order in permutations(STEPS[:3] + STEPS[5:]):
        await store.commands.save(order)
        assert await store.commands.load() == [STEPS[-1]]


async def test_commands_come_back_oldest_first(store: Store) -> None:
    asked = [command(f"cmd-{number}", created_at_ms=number, args={"n": number}) for number in range(500)]
    await store.commands.save(list(reversed(asked)))
    assert await store.commands.load() == asked


async def test_those_that_ended_first_are_forgotten_first_open_ones_never(store: Store) -> None:
    count = COMMANDS_ENDED_MAX + 5
    await store.commands.save([command(f"open-{number}", created_at_ms=number) for number in range(count)])
    ended = [
        command(f"ended-{number}", created_at_ms=5_000 + number, ended_at_ms=9_000 - number, status=CommandStatus.DONE)
        for number in range(count)
    ]
    await store.commands.save(ended)
    kept = await store.commands.load()
    assert kept[count:] == ended[:COMMANDS_ENDED_MAX]
    assert len(kept) == count + COMMANDS_ENDED_MAX


async def test_many_may_write_at_once(store: Store) -> None:
    await asyncio.gather(*(store.commands.save([step]) for step in STEPS * 5))
    assert await store.commands.load() == [STEPS[-1]]
