"""An agent with a join token, against a control plane that takes it in, refuses it, or forgets it."""

import asyncio
from collections.abc import Callable

import pytest

from muster.access.tokens import digest_of
from muster.errors import Forbidden, MusterError, Unauthorized, UpstreamFailed
from muster.ids import NodeId
from muster.links.calls import Call, CallingLink, M, R
from muster.links.joining import JoiningLink
from muster.wire import Deregistration, Join, Joined

NODE = NodeId("n1")
TICKET = "mst_join1_x"
GOODBYE = Deregistration(node_id=NODE, boot_id="b")


class Key:
    """A key in memory."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        self.secrets = 0

    def new_secret(self) -> str:
        return digest_of(f"secret-{self.secrets}")

    def joined(self, token_id: str) -> str:
        self.token = f"{token_id}/secret-{self.secrets}"
        return self.token

    def forget(self) -> None:
        self.token = None
        self.secrets += 1


class Plane:
    """Takes every node in whose join it likes; knows the tokens that it gave."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.joins: list[Join] = []
        self.heard: list[str] = []
        self.open = 0
        self.trouble: MusterError | None = None

    def link(self, token: str) -> "Link":
        return Link(self, token)


class Link(CallingLink):
    def __init__(self, plane: Plane, token: str) -> None:
        self._plane = plane
        self._token = token

    async def start(self) -> None:
        self._plane.open += 1

    async def stop(self) -> None:
        self._plane.open -= 1

    async def join(self, message: Join) -> Joined:
        await asyncio.sleep(0)
        self._plane.joins.append(message)
        if self._plane.trouble is not None:
            raise self._plane.trouble
        joined = f"node{len(self._plane.joins)}"
        self._plane.known.add(joined)
        return Joined(token_id=joined)

    async def _call(self, call: Call[M, R], message: M) -> R:
        if self._token.partition("/")[0] not in self._plane.known:
            raise Unauthorized("not known")
        self._plane.heard.append(self._token)
        return None  # type: ignore[return-value]  # a goodbye has no reply


@pytest.fixture
def plane() -> Plane:
    return Plane()


def joining(plane: Plane, key: Key, ticket: str | None = TICKET, patience_s: float = 0.0) -> JoiningLink:
    opened: Callable[[str], Link] = plane.link
    return JoiningLink(opened, NODE, key, ticket, patience_s=patience_s)


async def test_a_node_joins_before_its_first_call_and_then_shows_its_own_token(plane: Plane) -> None:
    key = Key()
    link = joining(plane, key)
    await link.start()
    await link.deregister(GOODBYE)
    await link.deregister(GOODBYE)

    assert [join.node_id for join in plane.joins] == [NODE]
    assert plane.heard == ["node1/secret-0"] * 2
    assert plane.open == 1
    await link.stop()
    await link.stop()
    assert plane.open == 0


async def test_many_first_calls_at_once_join_once(plane: Plane) -> None:
    link = joining(plane, Key())
    await asyncio.gather(*(link.deregister(GOODBYE) for _ in range(10)))

    assert (len(plane.joins), len(plane.heard), plane.open) == (1, 10, 1)


async def test_a_node_that_has_joined_before_does_not_join_again(plane: Plane) -> None:
    plane.known.add("node9")
    link = joining(plane, Key("node9/kept"))
    await link.start()
    await link.deregister(GOODBYE)

    assert plane.joins == []
    assert plane.heard == ["node9/kept"]


async def test_a_refused_join_is_told_and_tried_again_with_the_same_secret(plane: Plane) -> None:
    link = joining(plane, Key())
    for trouble in (Forbidden("used up"), UpstreamFailed("away")):
        plane.trouble = trouble
        with pytest.raises(type(trouble)):
            await link.deregister(GOODBYE)
    plane.trouble = None
    await link.deregister(GOODBYE)

    assert len({join.secret_sha256 for join in plane.joins}) == 1
    assert plane.open == 1


async def test_a_node_whose_token_counts_no_more_joins_with_a_new_secret(plane: Plane) -> None:
    key = Key()
    link = joining(plane, key)
    await link.deregister(GOODBYE)
    plane.known.clear()

    await link.deregister(GOODBYE)

    assert len({join.secret_sha256 for join in plane.joins}) == 2
    assert plane.heard == ["node1/secret-0", "node2/secret-1"]
    assert plane.open == 1


async def test_a_refusal_that_may_pass_is_waited_out(plane: Plane) -> None:
    """Another control plane may not have heard yet of a node that has just joined."""
    key = Key()
    link = joining(plane, key, patience_s=60)
    await link.deregister(GOODBYE)
    plane.known.clear()

    with pytest.raises(Unauthorized):
        await link.deregister(GOODBYE)
    plane.known.add("node1")
    await link.deregister(GOODBYE)

    assert len(plane.joins) == 1
    assert key.token == "node1/secret-0"


async def test_without_a_join_token_a_refusal_is_told(plane: Plane) -> None:
    link = joining(plane, Key("node9/kept"), ticket=None)
    await link.start()
    with pytest.raises(Unauthorized, match="not known"):
        await link.deregister(GOODBYE)

    lost = joining(plane, Key(), ticket=None)
    with pytest.raises(Unauthorized, match="MUSTER_TOKEN"):
        await lost.deregister(GOODBYE)
    assert plane.joins == []
