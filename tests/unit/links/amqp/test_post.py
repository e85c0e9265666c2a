"""Letters to nodes behind a broker, without the broker."""

from typing import Any

from muster.domain.node import Health, Node, NodeFacts
from muster.ids import NodeId
from muster.links.amqp.messages import Letter
from muster.links.amqp.post import LINK, Post
from muster.wire import CommandBatch, CommandPoll, LogAsk, decode
from tests.waiting import eventually

NODE = NodeId("n1")
ASK = LogAsk(ask_id="logs-1", plane_id="plane-1", node_id=NODE, action="list")


class Nodes:
    """As much of a NodeLink as the post asks: there are no commands, but something is asked of the logs."""

    async def next_commands(self, _: CommandPoll) -> CommandBatch:
        return CommandBatch(log_asks=(ASK,))


class Roster:
    def get(self, node_id: NodeId) -> Node:
        return Node(facts=NodeFacts(node_id=node_id), boot_id="boot-1", health=Health.HEALTHY, link=LINK)

    def nodes(self) -> list[Node]:
        return [self.get(NODE)]


async def test_what_is_asked_of_a_nodes_logs_is_a_letter_also_without_commands() -> None:
    sent: list[tuple[str, Letter]] = []

    async def send(body: bytes, _: str, key: str) -> bool:
        sent.append((key, decode(body, Letter)))
        return True

    nodes: Any = Nodes()
    post = Post(send, nodes, Roster())
    await post.start()
    post.look(NODE)
    await eventually(lambda: sent)
    await post.stop()
    ((key, letter),) = sent
    assert key == "node.n1"
    assert letter.batch is not None
    assert (letter.boot_id, letter.batch.log_asks) == ("boot-1", (ASK,))
