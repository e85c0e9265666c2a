"""Who submits the jobs: each again and again until it is accepted, under the same id, at any control plane."""

import asyncio
from collections.abc import Sequence

from tests.campaign.fleet import UNANSWERED, Fleet
from tests.campaign.orders import Order
from tests.campaign.pace import pause, until

_PATIENCE_S = 3.0  # with one control plane, before another is asked
_AGAIN_S = 0.2
_BUSY = frozenset({408, 429})
_ENDED = 409


class Customers:
    """Keeps the books: `asked` for every submit that was tried, `accepted` for those that were answered."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._turn = 0
        self.asked: set[str] = set()
        self.accepted: dict[str, Order] = {}
        self.refused: dict[str, str] = {}
        self.tries = 0
        self.known_already = 0  # accepted before, only the answer was lost
        self.cancelled = 0

    async def submit_all(self, orders: Sequence[Order], *, submitters: int, over_s: float) -> None:
        """Submit all of them evenly over so long; those that are held up come late."""
        began_s = asyncio.get_running_loop().time()
        every_s = over_s / len(orders)
        due = [(began_s + number * every_s, order) for number, order in enumerate(orders)]
        async with asyncio.TaskGroup() as group:
            for submitter in range(submitters):
                group.create_task(self._submit_in_turn(group, due[submitter::submitters]))

    async def _submit_in_turn(self, group: asyncio.TaskGroup, due: Sequence[tuple[float, Order]]) -> None:
        for at_s, order in due:
            await until(at_s)
            if await self.submit(order) and order.cancel_after_s is not None:
                group.create_task(self._cancel(order.job_id, order.cancel_after_s))

    async def submit(self, order: Order, plane: str | None = None) -> bool:
        """Return whether it was accepted: no other answer than a refusal ends the trying."""
        self.asked.add(order.job_id)
        while True:
            self.tries += 1
            status, body = await self._call(plane or self._next_plane(), "/api/jobs", order.body)
            if status in {200, 201}:
                self.known_already += status == 200
                self.accepted[order.job_id] = order
                return True
            if 400 <= status < 500 and status not in _BUSY:
                self.refused[order.job_id] = f"{status}: {body}"
                return False
            await pause(_AGAIN_S)

    async def _cancel(self, job_id: str, after_s: float) -> None:
        await pause(after_s)
        while True:
            status, _ = await self._call(self._next_plane(), f"/api/jobs/{job_id}/cancel", None)
            self.cancelled += status == 200
            if status in {200, _ENDED}:
                return
            await pause(_AGAIN_S)

    async def _call(self, plane: str, path: str, body: object) -> tuple[int, object]:
        """Return status and body; 0 where none came in time."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self._fleet.ask(plane, "POST", path, body)
        except UNANSWERED as error:
            return 0, error

    def _next_plane(self) -> str:
        self._turn += 1
        return self._fleet.plane_names[self._turn % self._fleet.shape.planes]
