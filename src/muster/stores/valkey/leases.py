from muster.stores.valkey.server import Server


class ValkeyLeases:
    """A Leases, on the server's own clock."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def take(self, name: str, owner: str, ttl_s: float) -> bool:
        return bool(await self._server.run("lease", name, owner, max(1, round(ttl_s * 1000))))

    async def holder(self, name: str) -> str | None:
        owner: bytes = await self._server.run("holder", name)
        return owner.decode() or None

    async def release(self, name: str, owner: str) -> None:
        await self._server.run("lease", name, owner, 0)
