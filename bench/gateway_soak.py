"""The gateway for minutes under callers who leave and engines that fail: nothing may be left of any request.

    python -m bench.gateway --soak 30

Engines answer, refuse, break off and fall silent by chance, and are killed, frozen and started again; there are fewer
slots than callers, so some wait and some are refused. It ends with what is left over, which must be nothing, with how
each request ended, and with how the memory of the gateway went.
"""

import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import psutil
import uvloop
from bench import gateway_page
from bench.gateway_callers import CLOSED, LEFT, LOST, SILENT, Caller
from bench.gateway_load import free_ports, running, until_listening
from bench.gateway_soaked import SLOTS, WAITING_MAX, Held
from msgspec import Struct

_ENGINES = 4
_CALLERS = 30
_SAMPLE_S = 2.0
_SETTLE_S = 30.0
_HURT_EVERY_S = (0.5, 2.0)
_HURT_FOR_S = (0.3, 1.5)
_PAGE_MINUTES = 5  # a shorter one says too little of memory to be kept
_KEPT = ("exchanges", "slots", "waiting", "callers", "engines", "tasks")
ROOT = Path(__file__).resolve().parents[1]


class Soaked(Struct, kw_only=True):
    """What there was, and what is left when all callers are gone: more than before they came."""

    seconds: float = 0.0
    outcomes: dict[str, int] = {}
    hurt: dict[str, int] = {}
    memory_mb: list[float] = []
    left: dict[str, int] = {}
    recorded: int = 0  # by the gateway
    quarantined: int = 0
    trusted_again: int = 0

    @property
    def requests(self) -> int:
        return sum(self.outcomes.values())

    @property
    def unaccounted(self) -> int:
        """Each request that was waited for has one record; others may not have come in."""
        waited_for = self.requests - self.outcomes.get(LEFT, 0) - self.outcomes.get(CLOSED, 0)
        return max(0, waited_for - self.recorded) + max(0, self.recorded - self.requests)

    @property
    def problems(self) -> list[str]:
        found = [f"{count} {what} left" for what, count in self.left.items() if count]
        found += [f"{self.outcomes[what]} {what}" for what in (SILENT, LOST) if self.outcomes.get(what)]
        return found + ([f"{self.unaccounted} unaccounted"] if self.unaccounted else [])

    @property
    def slope_mb_per_hour(self) -> float | None:
        """Fit a line to the second half, when everything has been used once."""
        points = self.memory_mb[len(self.memory_mb) // 2 :]
        if len(points) < 2:
            return None
        mean_x, mean_y = (len(points) - 1) / 2, sum(points) / len(points)
        above = sum((x - mean_x) * (y - mean_y) for x, y in enumerate(points))
        below = sum((x - mean_x) ** 2 for x in range(len(points)))
        return above / below * 3600 / _SAMPLE_S


class Engines:
    """Processes, some of which are hurt from time to time."""

    def __init__(self, rng: random.Random, ports: list[int], stack: contextlib.AsyncExitStack) -> None:
        self._rng = rng
        self._ports = ports
        self._stack = stack
        self._running: list[contextlib.ExitStack] = []
        self._processes: list[psutil.Popen] = []
        self.hurt: Counter[str] = Counter()

    async def start(self) -> None:
        for number in range(len(self._ports)):
            started = contextlib.ExitStack()
            self._stack.callback(started.close)
            self._running.append(started)
            self._processes.append(self._begin(number))
        for port, process in zip(self._ports, self._processes, strict=True):
            await asyncio.to_thread(until_listening, port, process)

    def _begin(self, number: int) -> psutil.Popen:
        words = ["-m", "bench.gateway_engine", str(self._ports[number]), str(self._rng.getrandbits(32))]
        return self._running[number].enter_context(running([sys.executable, *words], folder=ROOT))

    async def suffer(self) -> None:
        """Freeze one, or kill it and start it again after a while."""
        while True:
            await asyncio.sleep(self._rng.uniform(*_HURT_EVERY_S))
            number = self._rng.randrange(len(self._ports))
            how = self._rng.choice(("killed", "frozen"))
            self.hurt[how] += 1
            process = self._processes[number]
            process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
            try:
                await asyncio.sleep(self._rng.uniform(*_HURT_FOR_S))
            finally:
                if how == "frozen":
                    process.send_signal(signal.SIGCONT)
                else:
                    self._running[number].close()
                    self._processes[number] = self._begin(number)

    async def be_well(self) -> None:
        for port, process in zip(self._ports, self._processes, strict=True):
            await asyncio.to_thread(until_listening, port, process)
            process.send_signal(signal.SIGUSR1)


async def soak(*, requests: int | None = None, seconds: float = 3600.0, seed: int = 1) -> Soaked:
    """Go on for so many requests or seconds, whichever is over first, and return what is left."""
    rng = random.Random(seed)
    soaked = Soaked()
    outcomes: Counter[str] = Counter()
    async with _gateway(rng) as (engines, port, process):
        before = await _held(port)
        started_s = time.monotonic()

        def goes_on() -> bool:
            enough = requests is not None and outcomes.total() >= requests
            return not enough and time.monotonic() - started_s < seconds

        beside = [asyncio.create_task(engines.suffer()), asyncio.create_task(_measure(process, soaked.memory_mb))]
        async with asyncio.TaskGroup() as callers:
            everybody = [callers.create_task(Caller(port, rng, outcomes).live(goes_on)) for _ in range(_CALLERS)]
        del everybody
        soaked.seconds = time.monotonic() - started_s
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await engines.be_well()
        await _settled(lambda: _over(port, before))
        after = await _held(port)
        soaked.left = {what: getattr(after, what) - getattr(before, what) for what in _KEPT}
        soaked.recorded = after.finished
        soaked.quarantined, soaked.trusted_again = after.quarantined, after.trusted_again
        soaked.outcomes, soaked.hurt = dict(outcomes.most_common()), dict(engines.hurt)
    return soaked


@contextlib.asynccontextmanager
async def _gateway(rng: random.Random) -> AsyncIterator[tuple[Engines, int, psutil.Popen]]:
    port, *engine_ports = free_ports(1 + _ENGINES)
    async with contextlib.AsyncExitStack() as stack:
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mst-"))) / "gateway.log"
        urls = [f"http://127.0.0.1:{engine}" for engine in engine_ports]
        command = [sys.executable, "-m", "bench.gateway_soaked", str(port), *urls]
        process = stack.enter_context(running(command, folder=ROOT, log=log))
        engines = Engines(rng, engine_ports, stack)
        await engines.start()
        await asyncio.to_thread(until_listening, port, process)
        yield engines, port, process


async def _held(port: int) -> Held:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /held HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
    finally:
        writer.transport.abort()
    return msgspec.json.decode(answer.partition(b"\r\n\r\n")[2], type=Held)


async def _over(port: int, before: Held) -> bool:
    after = await _held(port)
    return all(getattr(after, what) <= getattr(before, what) for what in _KEPT)


async def _measure(process: psutil.Popen, memory_mb: list[float]) -> None:
    while True:
        memory_mb.append(process.memory_info().rss / 2**20)
        await asyncio.sleep(_SAMPLE_S)


async def _settled(check: Callable[[], Awaitable[bool]]) -> None:
    deadline_s = time.monotonic() + _SETTLE_S
    while not await check() and time.monotonic() < deadline_s:  # noqa: ASYNC110 - another process makes it true
        await asyncio.sleep(0.05)


def told(soaked: Soaked) -> list[str]:
    memory, slope = soaked.memory_mb or [0.0], soaked.slope_mb_per_hour
    to = f"{_ENGINES} engines with {SLOTS} slots each; {WAITING_MAX} may wait"
    trust = f"put into quarantine {soaked.quarantined} times, back {soaked.trusted_again} times"
    return [
        f"- {soaked.requests:,} requests in {soaked.seconds / 60:.1f} minutes, by {_CALLERS} callers to {to}.",
        f"- Engines: {_listed(soaked.hurt)}; {trust}.",
        f"- How requests ended: {_listed(soaked.outcomes)}; unaccounted: {soaked.unaccounted}.",
        f"- Left over: {_listed(soaked.left)}.",
        f"- Memory of the gateway: {memory[0]:.1f} MB at first, {memory[-1]:.1f} MB at last"
        + (f", {slope:+.2f} MB/hour over the second half." if slope is not None else "."),
    ]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{what} {count:,}" for what, count in counts.items()) or "nothing"


def main(minutes: float) -> int:
    """Return the exit code: 1 when something is left over, or was answered as it must not be."""
    print(f"\nGateway: {_CALLERS} callers and {_ENGINES} engines with all their faults, for {minutes:g} minutes\n")
    soaked = uvloop.run(soak(seconds=minutes * 60))
    print(*told(soaked), sep="\n")
    if minutes >= _PAGE_MINUTES:
        print(f"\nwritten: {gateway_page.write_part('soak', [f'{gateway_page.measured_on()}.', '', *told(soaked)])}")
    if soaked.problems:
        print(f"\nNOT HELD: {', '.join(soaked.problems)}")
    return 1 if soaked.problems else 0
