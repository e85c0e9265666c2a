"""Workers for nodes that have none of their own: who registers pools over `/v2` runs engines, but claims no jobs.

The control plane claims for them and asks their engines, so that a task for a model that only a pool has is done too.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

import aiohttp
import structlog
from msgspec.structs import replace

from muster.agent.jobs.offer import Means, make_offer
from muster.agent.jobs.worker import Worker
from muster.clock import Clock, Rng
from muster.connectors.catalog import all_connectors
from muster.control.fleet.candidates import reachable_url
from muster.control.fleet.fleet import Fleet
from muster.control.fleet.pools import Pool, PoolNodes
from muster.ids import JobId, NodeId, WorkerId
from muster.ports import Connector, FileLink, JobLink
from muster.rounds import Rounds, wait_up_to
from muster.wire.pools import LINK, engine_of

log = structlog.get_logger()

_LOOK_EVERY_S = 1.0
_STOP_S = 2.0


class PoolWorkers:
    """A Lifecycle. Of several control planes the one that `leads` does it: a pool has its slots once."""

    def __init__(
        self,
        fleet: Fleet,
        pools: PoolNodes,
        jobs: JobLink,
        files: FileLink | None,
        clock: Clock,
        rng: Rng,
        *,
        leads: Callable[[], bool],
    ) -> None:
        self._fleet = fleet
        self._pools = pools
        self._jobs = jobs
        self._files = files
        self._clock = clock
        self._rng = rng
        self._leads = leads
        self._workers: dict[tuple[str, int], Worker] = {}  # by pool's key and slots: these never change for a worker
        self._changed = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._rounds = Rounds()
        fleet.on_change(self._heard)

    async def start(self) -> None:
        if not self._rounds:
            self._session = aiohttp.ClientSession()
            connectors = {
                name: connector
                for name, connector in all_connectors(self._session, self._rng).items()
                if connector.needs_service
            }
            self._rounds.go("pool_workers", partial(self._run, connectors), 0, _LOOK_EVERY_S)

    async def stop(self) -> None:
        await self._rounds.stop()
        await self._dismiss(list(self._workers))
        if self._session is not None:
            await self._session.close()

    async def stop_job(self, job_id: JobId, worker_id: WorkerId) -> None:
        """Stop at once what no longer counts, if a worker of ours runs it."""
        for worker in self._workers.values():
            if worker.worker_id == worker_id:
                worker.drop_job(job_id)

    def _heard(self, node_ids: set[NodeId]) -> None:
        """Look at once where it may be a matter of pools: most of a fleet's news is not."""
        nodes = (self._fleet.book.get(node_id) for node_id in node_ids)
        if any(node is None or node.link == LINK for node in nodes):
            self._changed.set()

    async def _run(self, connectors: dict[str, Connector]) -> None:
        self._changed.clear()
        await self._look(connectors)
        await wait_up_to(self._changed, _LOOK_EVERY_S)

    async def _look(self, connectors: dict[str, Connector]) -> None:
        wanted = {(pool.key, pool.service.slots or 1): pool for pool in self._own_pools()}
        await self._dismiss([key for key in self._workers if key not in wanted])
        for key, pool in wanted.items():
            worker = self._workers.get(key)
            open_now = pool.ready and not pool.draining and self._pools.is_live(pool)
            if worker is None and not open_now:
                continue
            if worker is None:
                worker = self._workers[key] = self._hire(pool)
                await worker.start()
            worker.hold(held=not open_now)
            service = replace(pool.service, connector=_connector(pool, connectors), url=_url(pool))
            names = [pool.service.name, pool.key, *([pool.node.facts.pool] if pool.node.facts.pool else [])]
            means = Means(labels=pool.node.facts.labels, custom={"pool": names})
            worker.offer(make_offer(connectors, (service,), means))

    def _own_pools(self) -> Iterator[Pool]:
        for node in self._pools.nodes() if self._leads() else ():
            for service in node.services if node.link == LINK else ():
                if service.url:
                    yield Pool(node, service)

    def _hire(self, pool: Pool) -> Worker:
        index = [service.name for service in pool.node.services].index(pool.service.name)
        return Worker(
            pool.node.node_id,
            index,
            self._jobs,
            self._clock,
            self._rng,
            slots=pool.service.slots or 1,
            stop_timeout_s=_STOP_S,
            files=self._files,
        )

    async def _dismiss(self, keys: list[tuple[str, int]]) -> None:
        await asyncio.gather(*(self._workers.pop(key).stop() for key in keys))


def _connector(pool: Pool, connectors: dict[str, Connector]) -> str:
    """Return who drives the pool: an engine of unknown name is taken to speak OpenAI's API, as it was placed."""
    return pool.service.connector if pool.service.connector in connectors else engine_of(None)


def _url(pool: Pool) -> str:
    return reachable_url(pool.service.url or "", pool.node)
