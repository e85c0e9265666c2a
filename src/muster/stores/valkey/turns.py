from muster.stores.valkey.server import Server


class ValkeyTurns:
    """Turns: one key for each, which the server drops when its time is over."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def take(self, name: str, for_s: float) -> bool:
        key = self._server.key(f"turn:{name}")
        return await self._server.execute("SET", key, b"1", "NX", "PX", max(1, round(for_s * 1000))) is not None
