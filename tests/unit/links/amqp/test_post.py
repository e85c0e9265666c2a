from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest

from muster.domain.command import Command
from muster.domain.node import Health, Node, NodeFacts
from muster.errors import StoreUnavailable, UpstreamFailed
from muster.ids import CommandId, NodeId
from muster.links.amqp.messages import Letter
from muster.links.amqp.post import Post
from muster.wire import CommandBatch, CommandPoll, HeartbeatReply, decode
from tests.contract.links.amqp_served import Nodes
from tests.contract.links.planes import NotingPlane
from tests.waiting import eventually

A, B = NodeId("a"), NodeId("b")
BATCH = CommandBatch(commands=(Command(command_id=CommandId("cmd-1"), node_id=A, command="drain"),))
REPLY = HeartbeatReply(next_heartbeat_ms=1000, superseded=True)


class Broker:
    def __init__(self) -> None:
        self.letters: list[tuple[str, Letter]] = []
        self.errors: list[Exception] = []
        self.on_sent: Callable[[], None] = lambda: None

    async def send(self, body: bytes, exchange: str, key: str) -> bool:
        self.on_sent()
        if self.errors:
            raise self.errors.pop()
        self.letters.append((key, decode(body, Letter)))
        return True


class Plane(NotingPlane):
    def __init__(self) -> None:
        super().__init__()
        self.away_for: set[NodeId] = set()

    async def next_commands(self, message: CommandPoll) -> CommandBatch:
        if message.node_id in self.away_for:
            raise StoreUnavailable("the store does not answer")
        return BATCH


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def plane() -> Plane:
    return Plane()


@pytest.fixture
async def post(broker: Broker, plane: Plane) -> AsyncIterator[Post]:
    nodes = [
        Node(facts=NodeFacts(node_id=node_id), health=Health.HEALTHY, link="amqp", boot_id=f"{node_id}-boot")
        for node_id in (A, B)
    ]
    post = Post(broker.send, plane, Nodes(nodes), repeat_s=0.02)
    await post.start()
    yield post
    await post.stop()


def told(broker: Broker, node_id: NodeId) -> list[Letter]:
    return [letter for key, letter in broker.letters if key == f"node.{node_id}" and letter.batch is not None]


async def test_commands_are_repeated_however_much_else_is_to_be_written(post: Post, broker: Broker) -> None:
    broker.on_sent = partial(post.correct, B, "b-boot", REPLY)
    broker.on_sent()
    await eventually(lambda: len(told(broker, A)) >= 3)
    assert told(broker, A)[0] == Letter(boot_id="a-boot", batch=BATCH)
    assert ("node.b", Letter(boot_id="b-boot", reply=REPLY)) in broker.letters


async def test_one_node_whose_commands_cannot_be_read_does_not_keep_the_others_from_theirs(
    post: Post, broker: Broker, plane: Plane
) -> None:
    plane.away_for.add(A)
    await eventually(lambda: told(broker, B))
    assert told(broker, A) == []
    plane.away_for.clear()
    await eventually(lambda: told(broker, A))


@pytest.mark.parametrize("error", [UpstreamFailed("the broker is away"), RuntimeError("a fault of ours")], ids=repr)
async def test_what_goes_wrong_once_is_tried_again(post: Post, broker: Broker, error: Exception) -> None:
    broker.errors = [error]
    post.look(A)
    await eventually(lambda: told(broker, A))
    assert not broker.errors


async def test_it_may_be_stopped_twice_and_before_its_start(broker: Broker, plane: Plane) -> None:
    post = Post(broker.send, plane, Nodes())
    await post.stop()
    await post.start()
    await post.stop()
    await post.stop()
