"""The owner comes first: while a listed program runs here the fleet gets no work done, and its memory is free."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime

import psutil
from msgspec import Struct

from muster.agent.outbox import Teller
from muster.agent.owner.rules import OwnerRules, OwnerWatch, Seen
from muster.clock import Clock
from muster.domain.gpu import Gpu
from muster.rounds import Rounds


class Hands(Struct, frozen=True, kw_only=True):
    """How the machine is handed over: `hold` keeps new work away, `give_back` returns what still runs to the queue.

    `leave` ends services and frees memory; `come_back` has them as they were.
    """

    hold: Callable[[bool], None]
    running: Callable[[], int]
    give_back: Callable[[], None]
    leave: Callable[[], Awaitable[None]]
    come_back: Callable[[], Awaitable[None]]


class OwnerFirst:
    """A Lifecycle; `to` is whom the machine is yielded to at present."""

    def __init__(
        self,
        rules: OwnerRules,
        read_gpus: Callable[[], Awaitable[tuple[Gpu, ...]]],
        hands: Hands,
        outbox: Teller,
        clock: Clock,
        local_time: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._rules = rules
        self._read_gpus = read_gpus
        self._hands = hands
        self._outbox = outbox
        self._clock = clock
        self._local_time = local_time
        self._watch = OwnerWatch(rules)
        self._rounds = Rounds()
        self._ended = asyncio.Event()
        self.to: str | None = None

    async def start(self) -> None:
        self._rounds.go("owner", self._look, self._rules.look_every_s)

    async def stop(self) -> None:
        await self._rounds.stop()

    def work_changed(self) -> None:
        """Count again what still runs."""
        self._ended.set()

    async def _look(self) -> None:
        programs = await asyncio.to_thread(running_programs) if self._rules.processes else frozenset[str]()
        gpus = await self._read_gpus() if self._rules.gpu_busy_percent is not None else ()
        seen = Seen(programs=programs, gpus=gpus, now=self._local_time())
        before, self.to = self.to, self._watch.see(seen, self._clock.monotonic_s())
        if self.to is not None and before is None:
            await self._yield(self.to)
        elif self.to is None and before is not None:
            self._outbox.add("owner_left", after=before)
            try:
                await self._hands.come_back()
            finally:
                self._hands.hold(False)  # noqa: FBT003 - the one thing it says

    async def _yield(self, to: str) -> None:
        self._hands.hold(True)  # noqa: FBT003 - the one thing it says
        self._outbox.add("owner_came", to=to, jobs=self._hands.running())
        with suppress(TimeoutError):
            async with asyncio.timeout(self._rules.grace_s):
                while self._hands.running():
                    self._ended.clear()
                    await self._ended.wait()
        if returned := self._hands.running():
            self._hands.give_back()
        await self._hands.leave()
        self._outbox.add("machine_yielded", to=to, jobs_returned=returned)


def running_programs() -> frozenset[str]:
    """Return the names of all programs that run, in full and as the system cuts them short."""
    found: set[str] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error), process.oneshot():
            found.add(process.name())
            if words := process.cmdline():
                found.add(words[0].replace("\\", "/").rpartition("/")[2])
    return frozenset(found)
