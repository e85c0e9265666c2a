"""Which of several control planes does what only one may do: the one that holds a lease in the store."""

import asyncio

import structlog

from muster.clock import Clock
from muster.errors import MusterError
from muster.ports import Leases
from muster.rounds import Rounds

log = structlog.get_logger()

LEADER = "leader"  # the name of the lease
_TTL_S = 3.0
_RENEWALS_PER_TTL = 3
_MARGIN_S = 0.3  # we stop this much before another one may begin


class Leader:
    """A Lifecycle. `leads` is sure of itself: it turns false by time alone, before anybody else can take over.

    So one that was frozen, or that cannot reach the store, has noticed before it acts.
    """

    def __init__(self, leases: Leases, clock: Clock, plane_id: str, *, ttl_s: float = _TTL_S) -> None:
        self._leases = leases
        self._clock = clock
        self._plane_id = plane_id
        self._ttl_s = ttl_s
        self._until_s = float("-inf")
        self._told = False
        self._rounds = Rounds()

    @property
    def leads(self) -> bool:
        return self._clock.monotonic_s() < self._until_s

    def doubt(self, _: int = 0) -> None:
        """Ask the store before going on: time passed that the monotonic clock did not count, as in a suspended host."""
        self._until_s = float("-inf")

    async def start(self) -> None:
        if not self._rounds:
            await self.renew()
            self._rounds.go("leader", self._run, 0)

    async def stop(self) -> None:
        await self._rounds.stop(last=self._give_back)  # or else it ends by itself

    async def renew(self) -> None:
        """Ask once. What the store does not answer changes nothing: the time that we have runs on."""
        asked_s = self._clock.monotonic_s()
        try:
            taken = await self._leases.take(LEADER, self._plane_id, self._ttl_s)
        except MusterError as error:
            log.debug("leadership_unknown", error=error.message)
        else:
            self._until_s = asked_s + self._ttl_s - _MARGIN_S if taken else float("-inf")
        if self.leads is not self._told:
            self._told = self.leads
            log.info("leads" if self._told else "leads_no_more", plane_id=self._plane_id)

    async def _run(self) -> None:
        await asyncio.sleep(self._ttl_s / _RENEWALS_PER_TTL)
        await self.renew()

    async def _give_back(self) -> None:
        self._until_s = float("-inf")
        await self._leases.release(LEADER, self._plane_id)
