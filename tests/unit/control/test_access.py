"""Access over the twin of the store, alone and with a second control plane beside it."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from muster.access.roles import Right, Role
from muster.access.tokens import Wanted, digest_of
from muster.control.access import Access
from muster.errors import Conflict, Forbidden, InvalidInput, NotFound, StoreUnavailable, Unauthorized
from muster.ids import NodeId
from muster.stores.memory import MemoryStore
from muster.wire import Join
from tests.clocks import ManualClock
from tests.waiting import eventually

ADMIN = Wanted(name="boss", role=Role.ADMIN)


def access_to(store: MemoryStore, clock: ManualClock, bootstrap: str = "") -> Access:
    return Access(store.tokens, store.bus, clock, random.Random(5), bootstrap=bootstrap, requests_per_s_max=0.0)


@asynccontextmanager
async def running(store: MemoryStore, clock: ManualClock, bootstrap: str = "") -> AsyncIterator[Access]:
    access = access_to(store, clock, bootstrap)
    await access.start()
    await access.start()  # once is enough
    yield access
    await access.stop()
    await access.stop()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
async def access(store: MemoryStore, clock: ManualClock) -> AsyncIterator[Access]:
    async with running(store, clock) as access:
        yield access


def join(node_id: str = "n1", secret: str = "s") -> Join:
    return Join(node_id=NodeId(node_id), secret_sha256=digest_of(secret))


async def ticket(access: Access, uses: int = 1) -> bytes:
    """Return a join token of a fleet that has an admin."""
    if access.is_open:
        await access.create(ADMIN)
    _, text = await access.create(Wanted(name="rack", role=Role.AGENT, joins=True, uses_max=uses))
    return text.encode()


# --- making and revoking ----------------------------------------------------------------------------------------------


async def test_a_made_token_counts_at_once_and_closes_the_door(access: Access) -> None:
    was_open = access.is_open
    token, text = await access.create(ADMIN)

    assert (was_open, access.is_open) == (True, False)
    assert access.admit(text.encode(), Right.MANAGE).token_id == token.token_id
    assert access.refusal(text.encode(), Right.MANAGE) is None
    assert isinstance(access.refusal(None, Right.VIEW), Unauthorized)


async def test_what_does_not_fit_makes_no_token(access: Access, store: MemoryStore) -> None:
    with pytest.raises(InvalidInput):
        await access.create(Wanted(name="", role=Role.ADMIN))
    with pytest.raises(Conflict):
        await access.create(Wanted(name="first", role=Role.CLIENT))
    assert await store.tokens.load() == []


async def test_tokens_outlive_the_process(access: Access, store: MemoryStore, clock: ManualClock) -> None:
    _, text = await access.create(ADMIN)

    async with running(store, clock) as later:
        assert not later.is_open
        assert later.admit(text.encode(), Right.MANAGE).name == "boss"


async def test_what_one_control_plane_makes_or_revokes_counts_in_the_other(
    access: Access, store: MemoryStore, clock: ManualClock
) -> None:
    async with running(store, clock) as other:
        token, text = await access.create(ADMIN)
        assert await eventually(lambda: not other.is_open)
        assert other.admit(text.encode(), Right.MANAGE).name == "boss"

        await other.revoke(token.token_id)
        assert await eventually(lambda: access.is_open)


async def test_what_was_revoked_before_the_bus_is_heard_again_counts_no_more_once_it_is(
    access: Access, store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, _ = await access.create(ADMIN)
    subscribe, broken, asked, heard = store.bus.subscribe, asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def breaks(topic: str, ready: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
        if not broken.is_set():
            broken.set()
            raise StoreUnavailable("the connection was lost")
        asked.set()
        await heard.wait()
        async for data in subscribe(topic, ready):
            yield data

    monkeypatch.setattr(store.bus, "subscribe", breaks)
    async with running(store, clock) as other:
        await eventually(asked.is_set)
        await access.revoke(token.token_id)
        heard.set()
        await eventually(lambda: other.is_open)


async def test_a_token_too_young_to_have_been_heard_of_can_be_revoked(
    store: MemoryStore, clock: ManualClock, access: Access
) -> None:
    deaf = access_to(store, clock)
    token, _ = await access.create(ADMIN)

    await deaf.revoke(token.token_id)

    assert await store.tokens.load() == []
    with pytest.raises(NotFound, match="muster token list"):
        await deaf.revoke(token.token_id)


async def test_the_only_admin_is_not_revoked_before_the_others(access: Access) -> None:
    admin, _ = await access.create(ADMIN)
    await access.create(Wanted(name="eye", role=Role.VIEWER))

    with pytest.raises(Conflict):
        await access.revoke(admin.token_id)


async def test_the_last_use_is_known_at_once_and_kept_at_the_end(store: MemoryStore, clock: ManualClock) -> None:
    async with running(store, clock) as access:
        token, text = await access.create(ADMIN)
        clock.advance(5)
        access.admit(text.encode(), Right.VIEW)
        ((_, usage),) = await access.tokens()
        assert usage.last_used_at_ms == clock.now_ms()

    assert (await store.tokens.usage())[token.token_id].last_used_at_ms == clock.now_ms()


async def test_logs_tell_the_id_and_never_the_token(access: Access) -> None:
    with capture_logs() as logs:
        token, text = await access.create(ADMIN)
        await access.revoke(token.token_id)

    assert [entry["event"] for entry in logs] == ["token_created", "token_revoked"]
    assert all(entry["token_id"] == token.token_id for entry in logs)
    assert text.rsplit("_", 1)[1] not in str(logs)


# --- joining ----------------------------------------------------------------------------------------------------------


async def test_a_join_token_is_exchanged_for_one_that_speaks_for_its_node_only(access: Access) -> None:
    shown = await ticket(access)

    joined = await access.join(access.admit(shown, Right.JOIN), join("n1", "own"))

    caller = access.admit(f"mst_{joined.token_id}_own".encode(), Right.SPEAK)
    assert caller.node_id == "n1"
    with pytest.raises(Forbidden):
        caller.check_speaks_for("n2")


async def test_the_same_join_twice_is_one(access: Access) -> None:
    caller = access.admit(await ticket(access), Right.JOIN)

    first = await access.join(caller, join())
    again = await access.join(caller, join())

    assert first == again
    usages = {token.name: usage for token, usage in await access.tokens()}
    assert usages["rack"].uses == 1


async def test_a_join_token_is_good_for_as_many_nodes_as_it_says(access: Access) -> None:
    caller = access.admit(await ticket(access, uses=2), Right.JOIN)
    await access.join(caller, join("n1"))
    await access.join(caller, join("n2"))

    with pytest.raises(Forbidden, match="used up"):
        await access.join(caller, join("n3"))


async def test_a_join_token_does_not_make_one_node_of_another(access: Access) -> None:
    caller = access.admit(await ticket(access, uses=5), Right.JOIN)
    joined = await access.join(caller, join("n1", "first"))

    with pytest.raises(Conflict, match="has a token of its own"):
        await access.join(caller, join("n1", "second"))
    await access.revoke(joined.token_id)
    assert await access.join(caller, join("n1", "second")) == joined


async def test_of_two_control_planes_that_are_asked_at_once_one_takes_the_node_in(
    access: Access, store: MemoryStore, clock: ManualClock
) -> None:
    shown = await ticket(access, uses=5)
    other = access_to(store, clock)
    await other.start()
    first = await access.join(access.admit(shown, Right.JOIN), join("n1", "first"))
    with pytest.raises(Conflict):
        await other.join(other.admit(shown, Right.JOIN), join("n1", "second"))
    await other.stop()

    access.admit(f"mst_{first.token_id}_first".encode(), Right.SPEAK)


# --- trouble ----------------------------------------------------------------------------------------------------------


async def test_while_the_store_is_away_what_was_known_counts(
    store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(store, clock) as access:
        token, text = await access.create(ADMIN)
        load = store.tokens.load
        away = _failing(StoreUnavailable("away"))
        monkeypatch.setattr(store.tokens, "load", away)
        with capture_logs() as logs:
            await store.bus.publish("tokens", b"")
            await eventually(lambda: "tokens_interrupted" in [entry["event"] for entry in logs])
            assert access.admit(text.encode(), Right.MANAGE).name == "boss"
            await store.tokens.remove(token.token_id)
            monkeypatch.setattr(store.tokens, "load", load)
            assert await eventually(lambda: access.is_open)


async def test_a_use_that_cannot_be_noted_at_the_end_is_said(
    store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as logs:
        async with running(store, clock):
            monkeypatch.setattr(store.tokens, "note_used", _failing(StoreUnavailable("away")))

    assert "last_round_interrupted" in [entry["event"] for entry in logs]


def _failing(error: Exception) -> Callable[..., Awaitable[None]]:
    async def fail(*_: object) -> None:
        raise error

    return fail
