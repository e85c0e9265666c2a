"""More processes for the gateway: started, kept up, listened to and ended by the first one."""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import structlog
from msgspec import Struct

from muster import metrics as m
from muster.agent.backoff import Backoff
from muster.app.gateway_channel import Ask, Channel, Word
from muster.control.models.uses import Uses
from muster.control.system import GatewayReport
from muster.gateway.figures.decisions import RequestView
from muster.gateway.gateway import Gateway
from muster.metrics import Metric
from muster.system import SystemClock, die_with_parent, system_rng

log = structlog.get_logger()

_BACKOFF = Backoff(base_s=0.2, max_s=10.0)
_SOUND_AFTER_S = 30.0  # who lived that long has not failed to start
_ANSWER_S = 1.0
_STOP_MARGIN_S = 5.0  # beyond what answers are given to come to their end


class Place(Struct, frozen=True, kw_only=True):
    """What a gateway process is told: its settings, where the first listens for it, and who that is."""

    environment: Mapping[str, str]
    first: tuple[str, int]
    plane_id: str


class GatewayWorkers:
    """A Lifecycle: `count` processes beside our own gateway. `place` is asked for when the first is started."""

    def __init__(
        self, count: int, gateway: Gateway, uses: Uses, place: Callable[[], Place], *, stop_timeout_s: float
    ) -> None:
        self._workers = [
            _Worker(number, gateway, uses, place, stop_timeout_s + _STOP_MARGIN_S) for number in range(2, count + 2)
        ]

    async def start(self) -> None:
        for worker in self._workers:
            await worker.start()

    async def stop(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    def reports(self) -> Sequence[GatewayReport]:
        return [worker.report for worker in self._workers]

    async def explain(self, request_id: str) -> RequestView | None:
        """Ask all whether one remembers this request."""
        answers = await asyncio.gather(*(worker.explain(request_id) for worker in self._workers))
        return next((answer for answer in answers if answer is not None), None)

    def metrics(self) -> Iterator[Metric]:
        up = [worker.report for worker in self._workers if worker.report.pid is not None]
        yield m.GATEWAY_PROCESSES.single(1 + len(up))
        yield m.GATEWAY_PROCESS_MEMORY.of({(str(report.number),): report.memory_mb * 1024 * 1024 for report in up})


class _Worker:
    """One process, whichever it is at present."""

    def __init__(
        self, number: int, gateway: Gateway, uses: Uses, place: Callable[[], Place], stop_timeout_s: float
    ) -> None:
        self._number = number
        self._gateway = gateway
        self._uses = uses
        self._place = place
        self._stop_timeout_s = stop_timeout_s
        self._clock = SystemClock()
        self._rng = system_rng()
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False
        self._asked: dict[int, asyncio.Future[RequestView | None]] = {}
        self._asks = 0
        self._restarts = 0
        self._last = Word()

    @property
    def report(self) -> GatewayReport:
        """Return what is known of it; it has no pid until it serves."""
        heard = self._last.told is not None
        return GatewayReport(
            number=self._number,
            pid=self._process.pid if self._process is not None and heard else None,
            restarts=self._restarts,
            memory_mb=round(self._last.memory_bytes / (1024 * 1024), 1),
            connections=self._last.connections,
            in_flight=sum(self._last.told.in_flight.values()) if self._last.told is not None else 0,
        )

    async def start(self) -> None:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name=f"gateway process {self._number}")

    async def stop(self) -> None:
        """Let what runs there come to its end, and hear its last figures."""
        self._stopping = True
        if self._keeper is None:
            return
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()
        else:
            self._keeper.cancel()
        try:
            async with asyncio.timeout(self._stop_timeout_s):
                await asyncio.gather(self._keeper, return_exceptions=True)
        except TimeoutError:
            log.warning("gateway_process_killed", number=self._number, after_s=self._stop_timeout_s)
            self._keeper = None
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None

    async def explain(self, request_id: str) -> RequestView | None:
        channel = self._channel
        if channel is None:
            return None
        self._asks += 1
        ask_id = self._asks
        answer = self._asked[ask_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await channel.send(Ask(ask_id, request_id))
                found: RequestView | None = await answer
                return found
        except (TimeoutError, OSError):
            return None
        finally:
            del self._asked[ask_id]

    # --- its life ----------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        failures = 0
        while True:
            began_s = self._clock.monotonic_s()
            code = await self._run()
            if self._stopping:
                return
            failures = 1 if self._clock.monotonic_s() - began_s > _SOUND_AFTER_S else failures + 1
            wait_s = _BACKOFF.delay_s(failures, self._rng)
            self._restarts += 1
            log.error("gateway_process_died", number=self._number, reason=_reason(code), wait_s=round(wait_s, 1))
            await asyncio.sleep(wait_s)

    async def _run(self) -> int:
        """Run one process to its end; return its exit code."""
        ours, theirs = socket.socketpair()
        place = self._place()
        host, port = place.first
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "muster.app.gateway_worker"),
                *(f"{host}:{port}", place.plane_id, str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                env=place.environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for us: we stop it
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel = channel = await Channel.over(ours)
        try:
            while (word := await channel.receive(Word)) is not None:
                self._take(word)
            return await process.wait()
        finally:
            channel.close()
            self._channel, self._last = None, Word()
            self._gateway.siblings.ended(self._number)
            if process.returncode is not None:
                self._process = None

    def _take(self, word: Word) -> None:
        if word.told is not None:
            if self._last.told is None:
                log.info("gateway_process_serves", number=self._number, pid=self._process and self._process.pid)
            self._last = word
            self._gateway.siblings.hear(self._number, word.told)
            self._uses.answered(word.used)
        if word.answered is not None:
            answer = self._asked.get(word.answered)
            if answer is not None and not answer.done():
                answer.set_result(word.request)


def _reason(code: int) -> str:
    return f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with code {code}"
