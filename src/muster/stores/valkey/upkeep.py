import msgspec

from muster.domain.capability import Capability
from muster.domain.job import Lease
from muster.ids import JobId, WorkerId
from muster.ports import CapabilityClass, Expired
from muster.stores import rules
from muster.stores.valkey.rows import lease_of
from muster.stores.valkey.server import Server


class ValkeyUpkeep:
    """A JobUpkeep."""

    def __init__(self, server: Server, *, class_keep_s: float) -> None:
        self._server = server
        self._class_keep_ms = round(class_keep_s * 1000)

    async def overdue(self, limit: int) -> list[Lease]:
        return [lease_of(row) for row in await self._server.run("overdue", limit)]

    async def promote(self, limit: int) -> int:
        return int(await self._server.run("promote", limit))

    async def expire(self, limit: int) -> Expired:
        error = rules.DEADLINE_ERROR
        looked_at, *flat = await self._server.run("expire", limit, msgspec.json.encode(error), error.code)
        names = [name.decode() for name in flat]
        jobs = [(JobId(names[at]), WorkerId(names[at + 1]) or None) for at in range(0, len(names), 2)]
        return Expired(jobs=tuple(jobs), more=looked_at == limit)

    async def purge(self, ended_before_ms: int, keep_max: int, limit: int) -> int:
        return int(await self._server.run("purge", ended_before_ms, keep_max, limit, self._class_keep_ms))

    async def classes(self) -> list[CapabilityClass]:
        return [
            CapabilityClass(
                class_id=name.decode(), capability=msgspec.json.decode(body, type=Capability), sessions=sessions
            )
            for name, body, sessions in await self._server.run("classes")
        ]
