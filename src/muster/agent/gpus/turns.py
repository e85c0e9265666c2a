"""Services that share a GPU take turns: one works and keeps its memory while the others have let go of theirs.

A turn is a lease: it has a number that grows, and ends by itself unless it is renewed. So nobody keeps a GPU by having
been held up, and who was finds out that its turn is over.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager

import structlog
from msgspec import Struct

from muster.agent.outbox import Teller
from muster.clock import Clock
from muster.domain.service import Service
from muster.errors import UpstreamFailed

log = structlog.get_logger()

_LEASE_S = 30.0
_LOOK_AGAIN_S = 0.5  # a turn that ends by time tells nobody

Free = Callable[[Service], Awaitable[None]]
Say = Callable[[str], None]


class Turn(Struct, kw_only=True):
    """`gpu` None: all of them. `token` grows from turn to turn."""

    holder: str
    gpu: int | None
    doing: str
    token: int = 0
    until_s: float = 0.0
    over: bool = False  # what it was taken for is done; it goes on for what may follow

    def bars(self, other: "Turn") -> bool:
        return self.holder != other.holder and (self.gpu is None or other.gpu is None or self.gpu == other.gpu)

    def shown(self) -> str:
        where = "the GPUs" if self.gpu is None else f"GPU {self.gpu}"
        return f"waits for {where}: {self.holder} {self.doing}"


class GpuTurns:
    """`shared` names services, or connectors for all services of that kind; nobody else has to wait for a turn."""

    def __init__(
        self, shared: Collection[str], services: Callable[[], Iterable[Service]], clock: Clock, outbox: Teller
    ) -> None:
        self._shared = frozenset(shared)
        self._services = services
        self._clock = clock
        self._outbox = outbox
        self._free: Free | None = None
        self._held: list[Turn] = []
        self._line: list[Turn] = []
        self._tokens = 0
        self._changed = asyncio.Event()

    def freed_by(self, free: Free) -> None:
        """Have a service's memory taken from it by this, when the turn of another begins."""
        self._free = free

    def concerns(self, service: Service) -> bool:
        return service.name in self._shared or service.connector in self._shared

    @asynccontextmanager
    async def take(
        self, service: Service, doing: str, say: Say = lambda _: None, *, lasts_s: float = 0.0
    ) -> AsyncIterator[None]:
        """Wait for a turn, saying for whom; UpstreamFailed ends what is done in one that was lost.

        It goes on for `lasts_s` afterwards, for what the service is to do with what it has loaded.
        """
        if not self.concerns(service):
            yield
            return
        turn = Turn(holder=service.name, gpu=service.gpu_index, doing=doing)
        await self._wait(turn, say)
        try:
            async with self._renewed(turn):
                await self._make_room(turn)
                yield
        finally:
            turn.until_s, turn.over = self._clock.monotonic_s() + lasts_s, True
            if not lasts_s:
                self._end(turn)

    def leave(self, service: Service) -> None:
        """Let the next one begin: this service has nothing left that it could go on with."""
        for turn in [held for held in self._held if held.holder == service.name and held.over]:
            self._end(turn)

    async def _wait(self, turn: Turn, say: Say) -> None:
        said = ""
        self._line.append(turn)
        try:
            while (before := self._before(turn)) is not None:
                if before.shown() != said:
                    said = before.shown()
                    say(said)
                self._changed.clear()
                try:
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        await self._changed.wait()
                except TimeoutError:
                    continue
            self._tokens += 1
            turn.token = self._tokens
            self._renew(turn)
            self._held.append(turn)
        finally:
            self._line.remove(turn)
            self._changed.set()
        if said:
            self._outbox.add("gpu_turn", service=turn.holder, gpu=turn.gpu, token=turn.token, waited=said)

    def _before(self, turn: Turn) -> Turn | None:
        """Return who has to end first; those whose time is over are no reason to wait."""
        now_s = self._clock.monotonic_s()
        for held in [held for held in self._held if held.until_s <= now_s]:
            self._end(held)
        first = self._line.index(turn)
        return next((other for other in (*self._held, *self._line[:first]) if other.bars(turn)), None)

    @asynccontextmanager
    async def _renewed(self, turn: Turn) -> AsyncIterator[None]:
        task = asyncio.current_task()
        lost = False

        async def renew() -> None:
            nonlocal lost
            while turn in self._held:
                self._renew(turn)
                await asyncio.sleep(_LEASE_S / 3)
            lost = True
            if task is not None:
                task.cancel()

        renewing = asyncio.create_task(renew(), name=f"turn of {turn.holder}")
        try:
            yield
        except asyncio.CancelledError:
            if not lost or task is None:
                raise
            task.uncancel()
            raise UpstreamFailed(f"{turn.holder} was held up, and its turn at the GPU went to another") from None
        finally:
            renewing.cancel()

    def _renew(self, turn: Turn) -> None:
        turn.until_s = self._clock.monotonic_s() + _LEASE_S

    async def _make_room(self, turn: Turn) -> None:
        for service in self._services():
            other = Turn(holder=service.name, gpu=service.gpu_index, doing="")
            if self._free is not None and self.concerns(service) and other.bars(turn):
                await self._free(service)

    def _end(self, turn: Turn) -> None:
        self._held = [held for held in self._held if held is not turn]
        self._changed.set()
