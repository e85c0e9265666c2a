"""Tokens and what happened with them."""

import asyncio
import random

from muster.access.roles import Right, Role
from muster.access.tokens import Token, Usage, Wanted, digest_of
from muster.control.access import Access
from muster.errors import Unauthorized
from muster.ids import NodeId
from tests.clocks import ManualClock
from tests.contract.stores.world import Store
from tests.waiting import eventually


def token(token_id: str, secret: str = "s", **fields: object) -> Token:
    base: dict[str, object] = {
        "name": f"of-{token_id}",
        "role": Role.AGENT,
        "secret_sha256": digest_of(secret),
        "created_at_ms": 7,
    }
    return Token(token_id=token_id, **(base | fields))  # type: ignore[arg-type]  # a test's own shorthand


async def test_tokens_are_kept_whole(store: Store) -> None:
    plain = token("a")
    full = token("b", expires_at_ms=9, node_id=NodeId("n1"), requests_per_s=0.5, joins=True, uses_max=3)
    assert await store.tokens.add(plain)
    assert await store.tokens.add(full)

    assert sorted(await store.tokens.load(), key=lambda found: found.token_id) == [plain, full]


async def test_an_id_is_given_once_and_a_repeated_call_is_no_second_one(store: Store) -> None:
    assert await store.tokens.add(token("a"))
    assert await store.tokens.add(token("a"))
    assert not await store.tokens.add(token("a", secret="another"))

    assert await store.tokens.load() == [token("a")]


async def test_of_two_at_once_one_gets_the_id(store: Store) -> None:
    tried = [token("a", secret=str(number)) for number in range(8)]
    taken = await asyncio.gather(*(store.tokens.add(one) for one in tried))

    assert taken.count(True) == 1
    assert await store.tokens.load() == [tried[taken.index(True)]]


async def test_a_removed_token_is_gone_with_all_that_is_known_of_it(store: Store) -> None:
    await store.tokens.add(token("a"))
    await store.tokens.count_use("a")
    await store.tokens.note_used({"a": 5})

    assert await store.tokens.remove("a")
    assert not await store.tokens.remove("a")
    assert await store.tokens.load() == []
    assert await store.tokens.usage() == {}


async def test_uses_are_counted_one_by_one(store: Store) -> None:
    counts = await asyncio.gather(*(store.tokens.count_use("a") for _ in range(20)))

    assert sorted(counts) == list(range(1, 21))
    assert await store.tokens.usage() == {"a": Usage(uses=20)}


async def test_the_last_use_is_noted_and_revives_no_token(store: Store) -> None:
    await store.tokens.note_used({"a": 5, "b": 6})
    await store.tokens.note_used({"a": 8})
    await store.tokens.note_used({})

    assert await store.tokens.usage() == {"a": Usage(last_used_at_ms=8), "b": Usage(last_used_at_ms=6)}
    assert await store.tokens.load() == []


async def test_what_one_control_plane_does_with_tokens_the_other_hears_of(store: Store, clock: ManualClock) -> None:
    one, other = (
        Access(store.tokens, store.bus, clock, random.Random(seed), bootstrap="", requests_per_s_max=0.0)
        for seed in (1, 2)
    )
    await one.start()
    await other.start()
    _, text = await one.create(Wanted(name="boss", role=Role.ADMIN))
    await eventually(lambda: not other.is_open)

    eye, shown = await other.create(Wanted(name="eye", role=Role.VIEWER))
    await eventually(lambda: one.refusal(shown.encode(), Right.VIEW) is None)
    await one.revoke(eye.token_id)
    await eventually(lambda: isinstance(other.refusal(shown.encode(), Right.VIEW), Unauthorized))

    assert other.admit(text.encode(), Right.MANAGE).name == "boss"
    await one.stop()
    await other.stop()
