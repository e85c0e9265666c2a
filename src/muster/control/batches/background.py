"""Work that may wait: it is begun where nobody waits for an answer, and nowhere else."""

from collections.abc import Callable, Collection, Mapping

from muster.batches.lines import batch_of
from muster.domain.job import BACKGROUND_PRIORITY, ClaimedJob
from muster.domain.model import canonical_model_name
from muster.domain.node import Node
from muster.ids import NodeId, WorkerId
from muster.jobs.order import order_priority
from muster.placement.idle import Hands, engine_room, room
from muster.placement.wish import Wish
from muster.ports import FleetView

InFlight = Callable[[], Mapping[str, int]]
FirstWaiting = Callable[[str], int | None]


class Background:
    """Which background work the fleet has room for now, by what gateways have in flight and nodes last said."""

    def __init__(
        self,
        fleet: FleetView,
        nodes: Callable[[], Collection[Node]],
        in_flight: InFlight,
        first_waiting: FirstWaiting = lambda _: None,
    ) -> None:
        self._fleet = fleet
        self._nodes = nodes
        self._in_flight = in_flight
        self._first_waiting = first_waiting

    def room(self, model: str, capability: str) -> int:
        """Return how many requests of batches may run at a time, those that do included."""
        hands = {node.node_id: _hands(node) for node in self._nodes()}
        wish = Wish(model=model, capability=capability)
        return room(wish, self._fleet.candidates(), self._in_flight(), hands)

    def may_begin(self, worker_id: WorkerId, job: ClaimedJob) -> bool:
        """Tell whether the engine beside this worker is for this job now.

        A job is asked of it like a request, so it does not begin before one that waits for the same model and matters
        as much; background work does not unless there is room. Of what is no engine of the gateway nothing is known.
        """
        payload = job.spec.payload
        model = payload.get("model") if isinstance(payload, dict) else None
        if not isinstance(model, str):
            return True
        waits = self._first_waiting(canonical_model_name(model))
        if waits is None and job.spec.priority > BACKGROUND_PRIORITY:
            return True
        node_id = NodeId(worker_id.rpartition("-worker-")[0])
        engines = [one for one in self._fleet.candidates() if one.node_id == node_id and one.model(model) is not None]
        if engines and waits is not None and waits >= order_priority(job.spec):
            return False
        in_flight = self._in_flight()
        return (
            job.spec.priority > BACKGROUND_PRIORITY
            or not engines
            or any(engine_room(one, in_flight.get(one.key, 0)) for one in engines)
        )


def _hands(node: Node) -> Hands:
    others = sum(batch_of(job_id) is None for worker in node.workers for job_id in worker.current_jobs)
    return Hands(slots=sum(worker.slots for worker in node.workers), others=others)
