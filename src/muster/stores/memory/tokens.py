from collections import Counter
from collections.abc import Mapping

from muster.access.tokens import Token, Usage


class MemoryTokens:
    """A TokenStore."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._used_at_ms: dict[str, int] = {}
        self._uses: Counter[str] = Counter()

    async def load(self) -> list[Token]:
        return list(self._tokens.values())

    async def add(self, token: Token) -> bool:
        return self._tokens.setdefault(token.token_id, token) == token

    async def change(self, token: Token) -> bool:
        if token.token_id not in self._tokens:
            return False
        self._tokens[token.token_id] = token
        return True

    async def remove(self, token_id: str) -> bool:
        self._used_at_ms.pop(token_id, None)
        self._uses.pop(token_id, None)
        return self._tokens.pop(token_id, None) is not None

    async def count_use(self, token_id: str) -> int:
        self._uses[token_id] += 1
        return self._uses[token_id]

    async def note_used(self, at_ms: Mapping[str, int]) -> None:
        self._used_at_ms |= at_ms

    async def usage(self) -> dict[str, Usage]:
        return {
            token_id: Usage(last_used_at_ms=self._used_at_ms.get(token_id), uses=self._uses[token_id])
            for token_id in self._used_at_ms.keys() | self._uses.keys()
        }
