"""Who can run what: decided here and not in the server, once for each pair of class and signature.

And whose jobs: once for each pair of class and special customer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from muster.domain.capability import Capability
from muster.domain.job import Need
from muster.errors import StoreUnavailable
from muster.jobs.matching import admits, match, special_customers
from muster.stores.valkey.rows import digest_of
from muster.stores.valkey.server import Server

_OTHERS = "-"  # all customers who are not special
_LOOKED_AT_PER_CALL = 500
_TRIES_MAX = 50  # each try lost means that another control plane's was won

T = TypeVar("T")


class Matchmaker:
    """Adds classes, signatures and special customers.

    The store refuses what was matched against tables that have changed since.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._version = 0
        self._classes: dict[str, Capability] = {}
        self._needs: dict[str, Need] = {}
        self._customers: dict[str, str] = {}  # names of the special ones by digest
        self._one_at_a_time = asyncio.Lock()

    async def add_class(self, class_id: str, capability: Capability) -> None:
        """Add it once the customers that it names are told apart from all others."""
        await self.add_customers(special_customers(capability))
        body = msgspec.json.encode(capability)

        async def add() -> int:
            refused = [digest for digest, name in self._customers.items() if not admits(capability, name)]
            if not admits(capability, None):
                refused.append(_OTHERS)
            anybodys = _for_anybody(capability)
            able = [name for name, need in self._needs.items() if not match(need, anybodys)]
            return await self._run("add_class", class_id, body, len(refused), *refused, *able)

        await self._until_accepted(add, lambda: self._classes.update({class_id: capability}))

    async def add_signatures(self, needs: Mapping[str, Need]) -> None:
        async def add() -> int:
            args: list[Any] = []
            for signature, need in needs.items():
                able = [name for name, has in self._classes.items() if not match(need, _for_anybody(has))]
                args += [signature, msgspec.json.encode(need), need.service, len(able), *able]
            return await self._run("add_signatures", *args)

        await self._until_accepted(add, lambda: self._needs.update(needs))

    async def add_customers(self, names: Collection[str]) -> None:
        """Give customers queues of their own, and move there what they have in line."""
        new = await self._not_special({digest_of(name): name for name in names})

        async def add() -> int:
            args: list[Any] = []
            for digest, name in new.items():
                refusing = [class_id for class_id, has in self._classes.items() if not admits(has, name)]
                args += [digest, name, len(refusing), *refusing]
            return await self._run("add_customers", *args)

        if not new:
            return
        await self._until_accepted(add, lambda: self._customers.update(new))
        for digest in new:
            place: list[Any] = await self._server.run("confine", digest, _LOOKED_AT_PER_CALL)
            while place:
                place = await self._server.run("confine", digest, _LOOKED_AT_PER_CALL, *place)

    async def _not_special(self, names: Mapping[str, str]) -> dict[str, str]:
        if not names:
            return {}
        known = await self._server.execute("HMGET", self._server.key("special"), *names)
        return {digest: name for (digest, name), entry in zip(names.items(), known, strict=True) if entry is None}

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
                self._version, classes, needs, customers = await self._server.run("matched")
                self._customers = {digest.decode(): name.decode() for digest, name in _pairs(customers)}
                self._classes = _table(classes, Capability)
                self._needs = _table(needs, Need)
        raise StoreUnavailable("the tables of classes and signatures change faster than they can be read; try again")


def _for_anybody(capability: Capability) -> Capability:
    """Return what the class can do, whoever asks: customers have queues of their own where that matters."""
    access = capability.customers
    return (
        replace(capability, customers=replace(access, allow=(), deny=())) if access.allow or access.deny else capability
    )


def _table(flat: Sequence[bytes], kind: type[T]) -> dict[str, T]:
    return {name.decode(): msgspec.json.decode(body, type=kind) for name, body in _pairs(flat)}


def _pairs(flat: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)
