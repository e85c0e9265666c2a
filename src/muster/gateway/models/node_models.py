"""Models with an address (`hf:…`, `https://…`), which nodes fetch and keep themselves, in Ollama's words."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from muster.domain.source import HubSource, WebSource, parse_source
from muster.errors import MusterError, NotFound, SwitchedOff
from muster.gateway.http.reply import Reply
from muster.gateway.models.errand import Errand
from muster.ids import NodeId
from muster.ports import ModelKeeper

_OK, _BAD_GATEWAY = 200, 502

Work = Callable[[str, NodeId], AsyncIterator[str]]


def address_of(name: str) -> str | None:
    """Return the one spelling of an address; None for a name that Ollama servers know what to do with."""
    source = parse_source(name)
    return source.name if isinstance(source, WebSource | HubSource) else None


class NodeModelErrands:
    def __init__(self, keeper: ModelKeeper | None) -> None:
        self._keeper = keeper

    async def pull(self, errand: Errand, model: str, wanted: list[NodeId], most_room: Iterable[NodeId]) -> Reply:
        """Have it on the nodes that were named, else renewed where it is, else where there is most room."""
        keeper = self._the_keeper()
        nodes = wanted or list(keeper.holders(address_of(model) or model)) or list(most_room)[:1]
        if not nodes:
            raise NotFound(f"no node of this fleet could take {model}: name one with ?node=", field="node")
        return await _on_each(errand, keeper.pull, model, nodes)

    async def remove(self, errand: Errand, model: str) -> Reply:
        keeper = self._the_keeper()
        nodes = list(keeper.holders(address_of(model) or model))
        if not nodes:
            raise NotFound(f"model '{model}' not found", field="model")
        reply = await _on_each(errand, keeper.remove, model, nodes)
        return reply if reply.status != _OK else Reply()

    def _the_keeper(self) -> ModelKeeper:
        if self._keeper is None:
            raise SwitchedOff("this gateway cannot tell nodes to fetch or delete anything")
        return self._keeper


async def _on_each(errand: Errand, work: Work, model: str, nodes: list[NodeId]) -> Reply:
    async def follow(node_id: NodeId) -> str | None:
        try:
            async for message in work(model, node_id):
                await errand.tell({"status": f"{node_id}: {message}"})
        except MusterError as error:
            return f"{node_id}: {error.message}"
        return None

    failures = [text for text in await asyncio.gather(*map(follow, nodes)) if text is not None]
    if failures:
        return Reply.json({"error": "; ".join(failures)}, status=_BAD_GATEWAY)
    return Reply.json({"status": "success"})
