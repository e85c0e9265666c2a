"""Where POST /api/agent/* ends, whatever web framework carries it."""

from muster.links.calls import answer
from muster.ports import JobLink, NodeLink

PREFIX = "/api/agent/"


async def handle(path: str, body: bytes, nodes: NodeLink, jobs: JobLink) -> bytes | None:
    """Answer `/api/agent/NAME` or `NAME`; None stands for 204. Errors are MusterErrors, for the caller to render."""
    return await answer(path.removeprefix(PREFIX), body, nodes, jobs)
