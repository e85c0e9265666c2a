"""Callers whose model is at rest: kept waiting until a machine serves it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from muster.errors import ModelAsleep, MusterError, NoWorker, QueueFull
from muster.gateway.admission.holding import Hold
from muster.gateway.dialects.call import Call
from muster.gateway.limits import GatewayLimits
from muster.ports import Waker

_FULL_RETRY_S = 30.0

Woken = Callable[[MusterError | None], None]


class Waking:
    """One caller's Wait. At its end `woken` hears what went wrong, or None; unless `give_up` comes first."""

    def __init__(self, call: Call, hold: Hold, why: Callable[[], str]) -> None:
        self._call = call
        self._hold = hold
        self._why = why
        self._task: asyncio.Task[None] | None = None

    def begin(self, wait: Awaitable[None], woken: Woken, over: Callable[[], None]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._wait(wait, woken))
        self._task.add_done_callback(lambda _: over())

    def give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def check(self, now_s: float) -> None:
        if self._hold.is_due(now_s):
            self._hold.say(f"{self._call.model} {self._why()}", now_s)

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

    def begin(self, call: Call, hold: Hold, woken: Woken) -> Waking | None:
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
        waking = Waking(call, hold, lambda: waker.why(call.model))
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
