"""How a worker learns at once that a job of its no longer counts."""

from muster.commands.kinds import KINDS
from muster.commands.order import Order
from muster.control.commands import CommandService
from muster.ids import JobId, NodeId, WorkerId

_COMMAND = "cancel_job"


class Stopper:
    """Tells the worker's node by a command, which it waits for; a renewal would tell it only when it is due."""

    def __init__(self, commands: CommandService) -> None:
        self._commands = commands

    async def stop(self, job_id: JobId, worker_id: WorkerId) -> None:
        """Raise NodeNotFound, NodeNotConnected or QueueFull where the node cannot be told."""
        node_id, _, _ = worker_id.rpartition("-worker-")
        order = Order(
            command=_COMMAND,
            nodes=(NodeId(node_id),),
            single=True,
            args={"job_id": job_id},
            timeout_s=KINDS[_COMMAND].timeout_s,
            issued_by="queue",
        )
        await self._commands.issue(order, done_here=True)
