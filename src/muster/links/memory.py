"""The link of an agent in the control plane's own process."""

from muster.links.calls import Call, CallingLink, M, R, answer
from muster.logs.own import speaker, speaking_as
from muster.ports import JobLink, NodeLink
from muster.wire import decode, encode


class MemoryLink(CallingLink):
    """Every message goes through the codec all the same: what works in process works over a wire."""

    def __init__(self, nodes: NodeLink, jobs: JobLink) -> None:
        self._nodes = nodes
        self._jobs = jobs
        self._speaker = speaker()

    async def _call(self, call: Call[M, R], message: M) -> R:
        with speaking_as(self._speaker):
            reply = await answer(call.name, encode(message), self._nodes, self._jobs)
        return decode(b"null" if reply is None else reply, call.reply)
