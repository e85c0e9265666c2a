from typing import Any

from muster.domain.queue import ALL_SERVICES, CustomerFigures, CustomerTerms, QueueFigures
from muster.ids import JobId
from muster.stores import rules
from muster.stores.valkey.matchmaker import Matchmaker
from muster.stores.valkey.rows import digest_of
from muster.stores.valkey.server import Server


class ValkeyLines:
    """A JobLines."""

    def __init__(self, server: Server, matchmaker: Matchmaker) -> None:
        self._server = server
        self._matchmaker = matchmaker

    async def queues(self) -> list[QueueFigures]:
        paused, over_min, *rows = await self._server.run("queues", rules.RATE_MINUTES)
        names = frozenset(name.decode() for name in paused)
        figures = [_queue_of(row, names, [ms / 60_000 for ms in over_min]) for row in rows]
        known = {queue.service for queue in figures} | {ALL_SERVICES}
        figures += [QueueFigures(service=name, paused=True) for name in names - known]
        return sorted(figures, key=lambda queue: queue.service)

    async def paused(self) -> frozenset[str]:
        return frozenset(name.decode() for name in await self._server.execute("SMEMBERS", self._server.key("paused")))

    async def set_paused(self, service: str, *, paused: bool) -> bool:
        return bool(await self._server.run("pause", service, int(paused)))

    async def customers(self) -> list[CustomerFigures]:
        figures = [_customer_of(row) for row in await self._server.run("customers")]
        return sorted(figures, key=lambda customer: customer.name)

    async def customer(self, name: str) -> CustomerFigures:
        (row,) = await self._server.run("customers", digest_of(name))
        return _customer_of(row, name)

    async def set_customer(self, name: str, terms: CustomerTerms | None) -> bool:
        if terms is not None and terms.running_max is not None:
            await self._matchmaker.add_customers([name])
        return bool(
            await self._server.run("set_customer", digest_of(name), "" if terms is None else _text(name, terms))
        )


def _text(name: str, terms: CustomerTerms) -> str:
    running, waiting = ("" if most is None else most for most in (terms.running_max, terms.waiting_max))
    return f"{terms.weight}|{running}|{waiting}|{name}"


def _customer_of(row: list[Any], name: str = "") -> CustomerFigures:
    entry, unended, running = row
    terms = None
    if entry is not None:
        weight, running_max, waiting_max, name = entry.decode().split("|", 3)
        terms = CustomerTerms(
            weight=int(weight),
            running_max=int(running_max) if running_max else None,
            waiting_max=int(waiting_max) if waiting_max else None,
        )
    return CustomerFigures(name=name, terms=terms, waiting=max(0, unended - running), running=running)


def _queue_of(row: list[Any], paused: frozenset[str], over_min: list[float]) -> QueueFigures:
    service, waiting, unworkable, running, submitted, completed, failed, first = row
    name = service.decode()
    return QueueFigures(
        service=name,
        paused=name in paused or ALL_SERVICES in paused,
        waiting=waiting,
        unworkable=unworkable,
        running=running,
        submitted_per_min=submitted / over_min[0],
        completed_per_min=completed / over_min[1],
        failed_per_min=failed / over_min[2],
        first=tuple(sorted(JobId(job_id.decode()) for job_id in first)),
    )
