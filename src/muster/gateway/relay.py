"""What all requests on their way share: workers, connections, counts, deadlines."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from muster.clock import Clock
from muster.domain.trace import Tracer
from muster.errors import MusterError, ShuttingDown
from muster.gateway.admission.admission import Admission
from muster.gateway.admission.waking import Wakings
from muster.gateway.figures.decisions import Decisions
from muster.gateway.figures.usage import Finished, Usage
from muster.gateway.http.upstream import Upstreams
from muster.gateway.limits import GatewayLimits
from muster.gateway.routing.chat_only import ChatOnly
from muster.gateway.routing.route import Router
from muster.gateway.trust.conduct import Conduct
from muster.gateway.turn import Turn

_log = structlog.get_logger()


class Running(Protocol):
    """A request on its way; `using` is the worker that it is with, and the model that it asks for."""

    @property
    def using(self) -> tuple[str, str]: ...
    def check(self, now_s: float) -> None: ...
    def fail(self, error: MusterError) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def client_gone(self) -> None: ...


class Relay:
    """What all exchanges share."""

    def __init__(
        self,
        *,
        router: Router,
        upstreams: Upstreams,
        usage: Usage,
        limits: GatewayLimits,
        clock: Clock,
        on_finished: Callable[[Sequence[Finished]], None],
        wakings: Wakings,
        admission: Admission,
        conduct: Conduct,
        tracer: Tracer | None = None,
    ) -> None:
        self.router = router
        self.upstreams = upstreams
        self.usage = usage
        self.limits = limits
        self.clock = clock
        self.now_s = clock.monotonic_s
        self.on_finished = on_finished
        self.wakings = wakings
        self.admission = admission
        self.decisions = Decisions(limits.decisions_max, clock)
        self.conduct = conduct
        self.chat_only = ChatOnly()
        self.tracer = tracer
        self.continued = 0  # answers that another worker went on with
        self.active: set[Running] = set()
        self.turn = Turn(self.record)
        self._connecting: set[asyncio.Task[None]] = set()

    def connecting(self, task: asyncio.Task[None]) -> None:
        """Keep a reference until it is done; the loop itself does not."""
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def record(self, *finished: Finished) -> None:
        self.usage.finished(*finished)
        try:
            self.on_finished(finished)
        except Exception:  # noqa: BLE001 - who listens must not end what goes on here
            _log.exception("gateway_requests_not_told")

    def sweep(self, now_s: float) -> None:
        """Look at all deadlines at once: a timer for each stream would cost more than the stream."""
        for running in list(self.active):
            running.check(now_s)
        if self.admission.is_busy:
            self.admission.look()

    def end_all(self) -> None:
        self.turn.end()  # who has an answer gets it
        for running in list(self.active):
            running.fail(ShuttingDown("Muster is stopping"))
        for task in list(self._connecting):
            task.cancel()
