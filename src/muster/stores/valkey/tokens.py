from collections.abc import Mapping, Sequence

import msgspec

from muster.access.tokens import Token, Usage
from muster.stores.valkey.server import Server


class ValkeyTokens:
    """A TokenStore: a hash of records as JSON, and two of what happened: what is noted late revives no token."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._tokens = server.key("tokens")
        self._used = server.key("tokens:used")
        self._uses = server.key("tokens:uses")

    async def load(self) -> list[Token]:
        return [msgspec.json.decode(body, type=Token) for body in await self._server.execute("HVALS", self._tokens)]

    async def add(self, token: Token) -> bool:
        body = msgspec.json.encode(token)
        if await self._server.execute("HSETNX", self._tokens, token.token_id, body):
            return True
        # After a lost connection the call was repeated: then it is ours that is there.
        return bool(await self._server.execute("HGET", self._tokens, token.token_id) == body)

    async def change(self, token: Token) -> bool:
        return bool(await self._server.run("change_token", token.token_id, msgspec.json.encode(token)))

    async def remove(self, token_id: str) -> bool:
        removed = bool(await self._server.execute("HDEL", self._tokens, token_id))
        await self._server.execute("HDEL", self._used, token_id)
        await self._server.execute("HDEL", self._uses, token_id)
        return removed

    async def count_use(self, token_id: str) -> int:
        return int(await self._server.execute("HINCRBY", self._uses, token_id, 1))

    async def note_used(self, at_ms: Mapping[str, int]) -> None:
        if at_ms:
            await self._server.execute("HSET", self._used, *(word for item in at_ms.items() for word in item))

    async def usage(self) -> dict[str, Usage]:
        used = _numbers(await self._server.execute("HGETALL", self._used))
        uses = _numbers(await self._server.execute("HGETALL", self._uses))
        return {
            token_id: Usage(last_used_at_ms=used.get(token_id), uses=uses.get(token_id, 0))
            for token_id in used.keys() | uses.keys()
        }


def _numbers(flat: Sequence[bytes]) -> dict[str, int]:
    return {name.decode(): int(number) for name, number in zip(flat[::2], flat[1::2], strict=True)}
