"""Who can run what: decided here and not in the server, once for each pair of class and signature."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from muster.domain.capability import Capability
from muster.domain.job import Need
from muster.errors import StoreUnavailable
from muster.jobs.matching import match
from muster.stores.valkey.server import Server

_TRIES_MAX = 50  # each try lost means that another control plane's was won

T = TypeVar("T")


class Matchmaker:
    """Adds classes and signatures. The store refuses what was matched against tables that have changed since."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._version = 0
        self._classes: dict[str, Capability] = {}
        self._needs: dict[str, Need] = {}
        self._one_at_a_time = asyncio.Lock()

    async def add_class(self, class_id: str, capability: Capability) -> None:
        async def add() -> int:
            able = [name for name, need in self._needs.items() if not match(need, capability)]
            return await self._run("add_class", class_id, msgspec.json.encode(capability), *able)

        await self._until_accepted(add, lambda: self._classes.update({class_id: capability}))

    async def add_signatures(self, needs: Mapping[str, Need]) -> None:
        async def add() -> int:
            args: list[Any] = []
            for signature, need in needs.items():
                able = [name for name, capability in self._classes.items() if not match(need, capability)]
                args += [signature, msgspec.json.encode(need), len(able), *able]
            return await self._run("add_signatures", *args)

        await self._until_accepted(add, lambda: self._needs.update(needs))

    async def _run(self, name: str, *args: Any) -> int:
        return int(await self._server.run(name, self._version, *args))

    async def _until_accepted(self, add: Callable[[], Awaitable[int]], note: Callable[[], None]) -> None:
        async with self._one_at_a_time:
            for _ in range(_TRIES_MAX):
                version = await add()
                if version >= 0:
                    self._version = version
                    note()
                    return
                self._version, classes, needs = await self._server.run("matched")
                self._classes = _table(classes, Capability)
                self._needs = _table(needs, Need)
        raise StoreUnavailable("the tables of classes and signatures change faster than they can be read; try again")


def _table(flat: Sequence[bytes], kind: type[T]) -> dict[str, T]:
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {name.decode(): msgspec.json.decode(body, type=kind) for name, body in pairs}
