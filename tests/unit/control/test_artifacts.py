"""Who has which artifact, by what heartbeats say."""

from typing import Any

import pytest

from muster.access import tickets
from muster.control import artifacts
from muster.domain.artifact import Artifact, ArtifactState, NodeArtifacts
from muster.domain.node import NodeFacts
from muster.errors import InvalidInput
from muster.ids import NodeId
from muster.wire import ArtifactQuery, ArtifactReply
from tests.planes import PlaneUnderTest

NAME, DIGEST, OTHER = "hf:org/repo/m.gguf", "ab" * 32, "cd" * 32


@pytest.fixture
def plane() -> PlaneUnderTest:
    return PlaneUnderTest()


async def node(
    plane: PlaneUnderTest,
    name: str,
    *kept: Artifact,
    pool: str | None = None,
    address: str = "10.0.0.9",
    seq: int = 1,
    **more: Any,
) -> None:
    facts = NodeFacts(node_id=NodeId(name), pool=pool, address=address)
    shared: dict[str, Any] = {"url": f"http://{address}:7000", "ticket_key": f"key of {name}"} | more
    await plane.heartbeat(name, seq, facts=facts, artifacts=NodeArtifacts(kept=kept, **shared))


def copy(digest: str = DIGEST, state: ArtifactState = ArtifactState.ON_DISK, name: str = NAME) -> Artifact:
    return Artifact(name=name, digest=digest, state=state, size_bytes=7)


async def ask(plane: PlaneUnderTest, by: str = "asking", **query: Any) -> ArtifactReply:
    return await plane.ingest.find_artifacts(ArtifactQuery(node_id=NodeId(by), **({"name": NAME} | query)))


def nodes_of(reply: ArtifactReply) -> list[str]:
    return [holder.node_id for holder in reply.holders]


async def test_holders_come_with_a_ticket_for_this_artifact(plane: PlaneUnderTest) -> None:
    await node(plane, "a", copy())
    (holder,) = (await ask(plane)).holders
    assert (holder.node_id, holder.url, holder.digest, holder.size_bytes) == ("a", "http://10.0.0.9:7000", DIGEST, 7)
    now_ms = plane.clock.now_ms()
    assert tickets.is_good("key of a", holder.ticket, DIGEST, now_ms)
    assert not tickets.is_good("key of b", holder.ticket, DIGEST, now_ms)
    assert not tickets.is_good("key of a", holder.ticket, OTHER, now_ms)
    assert not tickets.is_good("key of a", holder.ticket, DIGEST, now_ms + 3_600_000)


async def test_those_of_the_same_pool_come_first_and_not_all_ask_the_same(plane: PlaneUnderTest) -> None:
    for name, pool in (("a", "x"), ("b", "y"), ("c", "y"), ("d", "y"), ("e", None), ("f", None), ("g", None)):
        await node(plane, name, copy(), pool=pool)
    assert nodes_of(await ask(plane, "c")) == ["d", "b", "e", "f", "g"]
    assert nodes_of(await ask(plane, "b")) == ["c", "d", "e", "f", "g"]
    assert len(nodes_of(await ask(plane, "new"))) == 5


async def test_a_version_that_is_asked_for_is_the_only_one_that_counts(plane: PlaneUnderTest) -> None:
    await node(plane, "a", copy(OTHER))
    await node(plane, "b", copy(name="https://elsewhere/same-bytes"))
    assert nodes_of(await ask(plane)) == ["a"]
    assert nodes_of(await ask(plane, digest=DIGEST)) == []
    assert nodes_of(await ask(plane, name="", digest=DIGEST)) == ["b"]


@pytest.mark.parametrize(
    ("kept", "more"),
    [
        (copy(state=ArtifactState.FAILED), {}),
        (Artifact(name=NAME), {}),
        (copy(), {"url": None}),
        (copy(), {"ticket_key": None}),
        (copy(), {"url": "http://127.0.0.1:7000"}),
        (copy(), {"url": "http://localhost:7000"}),
    ],
    ids=["failed", "no digest", "no door", "no key", "loopback", "localhost"],
)
async def test_who_cannot_give_it_is_not_named(plane: PlaneUnderTest, kept: Artifact, more: dict[str, Any]) -> None:
    await node(plane, "asking")
    await node(plane, "a", kept, **more)
    assert (await ask(plane)).holders == ()


async def test_on_one_machine_loopback_leads_somewhere(plane: PlaneUnderTest) -> None:
    await node(plane, "asking", address="127.0.0.1")
    await node(plane, "a", copy(), address="127.0.0.1")
    assert nodes_of(await ask(plane)) == ["a"]
    assert nodes_of(await ask(plane, "unheard-of")) == []


async def test_a_node_that_is_silent_or_the_asking_one_does_not_count(plane: PlaneUnderTest) -> None:
    await node(plane, "asking", copy())
    await node(plane, "a", copy())
    plane.clock.advance(31)
    assert (await ask(plane)).holders == ()


async def test_who_fetches_it_is_named_and_who_was_told_to_as_well(plane: PlaneUnderTest) -> None:
    for name in ("a", "b", "c"):
        await node(plane, name)
    assert (await ask(plane, "a", fetches=True)).fetching == ()
    assert (await ask(plane, "a", fetches=True)).fetching == ()
    assert (await ask(plane, "b", fetches=True)).fetching == ("a",)
    plane.clock.advance(20)
    for name in ("b", "c"):
        await node(plane, name, seq=2)
    plane.clock.advance(11)  # a has neither said that it fetches nor anything else
    assert (await ask(plane, "b", fetches=True)).fetching == ()
    assert (await ask(plane, "c")).fetching == ("b",)
    await node(plane, "c", Artifact(name=NAME, state=ArtifactState.FETCHING), seq=3)
    assert (await ask(plane, "a")).fetching == ("b", "c")


async def test_who_was_told_to_fetch_is_remembered_for_so_many_only(
    plane: PlaneUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "_CLAIMS_MAX", 1)
    await node(plane, "a")
    await ask(plane, "a", fetches=True)
    await ask(plane, "a", name="another", fetches=True)
    assert (await ask(plane, "b")).fetching == ()
    assert (await ask(plane, "b", name="another")).fetching == ("a",)


async def test_which_copies_others_have_is_told_by_pool(plane: PlaneUnderTest) -> None:
    await node(plane, "asking", pool="x")
    await node(plane, "a", copy(), pool="x")
    await node(plane, "b", copy(), copy(OTHER), pool="y")
    reply = await ask(plane, name="", kept=(DIGEST, OTHER, "ef" * 32))
    assert (reply.in_pool, reply.elsewhere, reply.holders) == ((DIGEST,), (OTHER,), ())


async def test_a_question_has_bounds(plane: PlaneUnderTest) -> None:
    with pytest.raises(InvalidInput, match="at most"):
        await ask(plane, kept=("x",) * 10_001)
    with pytest.raises(InvalidInput):
        await ask(plane, "unknown")
