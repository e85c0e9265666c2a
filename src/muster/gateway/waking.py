"""Callers whose model is at rest: kept waiting, and kept believing, until a machine serves it.

What may be sent before an answer begins, without any client taking it for an answer: a comment in OpenAI's stream of
events, a blank before the first line of Ollama's stream of JSON. An answer that is not streamed cannot be begun before
it is known how it ends, so its caller waits in silence.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from muster.domain.service import Dialect
from muster.errors import ModelAsleep, MusterError, NoWorker, QueueFull
from muster.gateway.call import Call
from muster.gateway.delivery import Delivery
from muster.gateway.limits import GatewayLimits
from muster.gateway.reply import NDJSON
from muster.ports import Waker

_EVENTS = b"text/event-stream; charset=utf-8"
_FULL_RETRY_S = 30.0

Woken = Callable[[MusterError | None], None]


class Waking:
    """One caller's wait. At its end `woken` hears what went wrong, or None; unless `give_up` comes first."""

    def __init__(
        self,
        call: Call,
        delivery: Delivery,
        correlation_id: bytes,
        now_s: float,
        keep_alive_s: float,
        why: Callable[[], str],
    ) -> None:
        self._call = call
        self._delivery = delivery
        self._correlation_id = correlation_id
        self._spoke_s = now_s
        self._keep_alive_s = keep_alive_s
        self._why = why
        self._task: asyncio.Task[None] | None = None

    def begin(self, wait: Awaitable[None], woken: Woken, over: Callable[[], None]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._wait(wait, woken))
        self._task.add_done_callback(lambda _: over())

    def give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def check(self, now_s: float) -> None:
        """Say something when there has been silence for long enough for a proxy to lose patience."""
        if not self._call.stream or now_s - self._spoke_s < self._keep_alive_s:
            return
        self._spoke_s = now_s
        events = self._call.dialect is not Dialect.OLLAMA
        if not self._delivery.began:
            lines = b"content-type: %b\r\ncache-control: no-cache\r\nx-correlation-id: %b\r\n"
            lines %= (_EVENTS if events else NDJSON, self._correlation_id)
            self._delivery.prepare(200, lines, length=None, streamed=True, by_line=False)
        why = " ".join(self._why().split())  # in one line, whatever it is
        self._delivery.send(f": {self._call.model} {why}\n\n".encode() if events else b" ")

    @staticmethod
    async def _wait(wait: Awaitable[None], woken: Woken) -> None:
        problem: MusterError | None = None
        try:
            await wait
        except MusterError as error:
            problem = error
        woken(problem)


class Wakings:
    """All who wait, with a bound for each model."""

    def __init__(self, waker: Waker | None, limits: GatewayLimits) -> None:
        self._waker = waker
        self._limits = limits
        self._waiting: Counter[str] = Counter()

    def begin(self, call: Call, delivery: Delivery, correlation_id: bytes, now_s: float, woken: Woken) -> Waking | None:
        """Return None when nothing can be woken for this call; raise QueueFull when too many wait for it."""
        if self._waker is None:
            return None
        if self._waiting[call.model] >= self._limits.wake_waiting_max:
            raise QueueFull(
                f"{self._limits.wake_waiting_max} requests wait for the machine of {call.model}: try again later",
                field="model",
                retry_after_s=_FULL_RETRY_S,
                policy_label="waking",
            )
        waker = self._waker
        wait = waker.wake(call.model)
        if wait is None:
            return None
        self._waiting[call.model] += 1
        keep_alive_s = self._limits.wake_keepalive_s
        waking = Waking(call, delivery, correlation_id, now_s, keep_alive_s, lambda: waker.why(call.model))
        waking.begin(wait, woken, lambda: self._left(call.model))
        return waking

    def _left(self, model: str) -> None:
        self._waiting[model] -= 1
        if not self._waiting[model]:
            del self._waiting[model]


def still_asleep(error: MusterError) -> MusterError:
    """Say why a request that has waited is not answered after all, if the next may be."""
    if not isinstance(error, NoWorker) or isinstance(error, ModelAsleep):
        return error
    return ModelAsleep(error.message, field=error.field, retry_after_s=error.retry_after_s or 1.0, **error.data)
