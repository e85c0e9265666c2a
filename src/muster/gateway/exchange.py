"""One request on its way: a worker is reserved and asked, another one if that fails, and its caller is answered.

Until the first byte of the answer's body has gone to the caller, any failure moves on to the next worker; after it the
caller is told in its own dialect. Every way out leads through `_close`, which gives the reservation back.
"""

import asyncio
import contextlib
from typing import Protocol

from muster.errors import ModelNotFound, MusterError, NoWorker
from muster.gateway.attempt import Attempt, worker_line
from muster.gateway.continuation import CONNECTORS, Beginning, Continuation
from muster.gateway.dialects.call import Call
from muster.gateway.dialects.shape import error_frame, error_reply
from muster.gateway.figures.trail import Trail
from muster.gateway.figures.usage import CLIENT_GONE, Finished
from muster.gateway.http.delivery import Delivery
from muster.gateway.http.pins import pinned
from muster.gateway.http.reply import Reply
from muster.gateway.http.request import Request
from muster.gateway.metering.meter import Meter
from muster.gateway.relay import Relay, Running
from muster.gateway.seeking import Seeking, reserve
from muster.placement.candidate import Candidate
from muster.placement.wish import Wish

_OK = 200
_NOBODY: frozenset[str] = frozenset()


class Client(Protocol):
    """The caller's connection, as far as an exchange needs it."""

    transport: asyncio.Transport
    exchange: Running | None

    def answered(self, *, keep_alive: bool) -> None: ...


class Exchange:
    """One request and the attempts to have it answered, one after the other."""

    __slots__ = (
        "_answered_s",
        "_asked_s",
        "_outcome",
        "_over",
        "_rest",
        "_seeking",
        "_started_s",
        "_tried",
        "_worker",
        "attempt",
        "attempts",
        "beginning",
        "call",
        "client",
        "continuation",
        "delivery",
        "first_byte_s",
        "meter",
        "parts",
        "passage",
        "paused",
        "pins",
        "relay",
        "request",
        "trail",
    )

    def __init__(self, relay: Relay, call: Call, request: Request, client: Client, meter: Meter) -> None:
        self.relay = relay
        self.call = call
        self.request = request
        self.client = client
        self.meter = meter
        self.delivery = Delivery(client.transport, http_1_0=request.http_1_0, keep_alive=request.keep_alive)
        self._started_s = self._asked_s = relay.now_s()
        self.passage = relay.decisions.begin(call, request.correlation_id, self._started_s)
        self.attempt: Attempt | None = None  # the present one
        self.attempts = 0
        self.pins: Wish | None = None
        self.trail: Trail | None = None
        self.continuation: Continuation | None = None  # of a stream that could be gone on with elsewhere
        self.beginning: Beginning | None = None  # what an earlier worker has said of this answer
        self.first_byte_s: float | None = None
        self.parts = 0  # in which the answer came
        self.paused = False
        self._seeking: Seeking | None = None  # while it has no worker
        self._rest = b""  # of an answer that has come whole, at _answered_s
        self._answered_s = 0.0
        self._worker = ""  # that was asked last, at _asked_s
        self._tried = _NOBODY
        self._over = False
        self._outcome: tuple[int, str | None, float, int] = (0, None, 0.0, 1)

    @property
    def using(self) -> tuple[str, str]:
        return ("" if self.attempt is None else self._worker), self.call.model

    def follow_on(self, said: Continuation, beginning: Beginning) -> None:
        """Go on with an answer that the caller has the beginning of; to be said before `start`."""
        self.continuation, self.beginning = said, beginning
        self.delivery.follow_on()

    def start(self) -> None:
        self.client.exchange = self
        self.relay.active.add(self)
        if self.relay.tracer is not None:
            self.trail = Trail(self.relay.tracer, self.call, self.request)
        try:
            self.pins = pinned(self.request.headers)
            if self.relay.admission.is_busy:
                self.relay.admission.look_at(self.call.model)
            candidate = self.reserve()
        except (ModelNotFound, NoWorker) as error:
            self._seeking = Seeking(self)
            self._seeking.wait_for_a_machine(error)
        except MusterError as error:
            self.fail(error)
        else:
            if candidate is not None:
                self._take(candidate, self._started_s).begin()
                return
            self._seeking = Seeking(self)
            self._seeking.wait_for_a_slot()

    # --- workers -----------------------------------------------------------------------------------------------------

    def reserve(self) -> Candidate | None:
        while True:
            candidate = reserve(self.relay, self.call, self.request.headers, self._tried, self.pins)
            if candidate is None or self.beginning is None or candidate.connector in CONNECTORS:
                return candidate
            self.relay.router.release(candidate)
            self._tried |= {candidate.key}

    def found(self, candidate: Candidate) -> None:
        """Take the slot at once, and begin when whoever gave it back is done with that."""
        attempt = self._take(candidate, self.relay.now_s())
        asyncio.get_running_loop().call_soon(self._begin, attempt)

    def _begin(self, attempt: Attempt) -> None:
        if self.attempt is attempt:
            attempt.begin()

    def _take(self, candidate: Candidate, now_s: float) -> Attempt:
        self._seeking = None
        self._worker, self._asked_s = candidate.key, now_s
        attempt = self.attempt = Attempt(self, candidate, now_s)
        return attempt

    def _another(self) -> Candidate | None:
        """Reserve a worker that has not been tried."""
        self._tried |= {self._worker}
        if self.attempts >= self.relay.limits.attempts_max:
            return None
        with contextlib.suppress(MusterError):  # why nobody else can be asked matters less than why this one failed
            return self.reserve()
        return None

    def move_on(self, error: MusterError, reason: str) -> None:
        """Ask another worker, as the present one has failed."""
        self._note_failure(reason)
        if self.trail is not None:
            self.trail.attempt_ended(reason)
        candidate = self._another()
        if candidate is None:
            self.fail(error)
        else:
            self._change_to(candidate)

    def turned_away(self, reason: str, *, failed: bool) -> bool:
        """Ask another worker, if there is one, as this one says that it cannot now."""
        if failed:
            self._note_failure(reason)
        candidate = self._another()
        if candidate is None:
            return False
        if self.trail is not None:
            self.trail.attempt_ended(reason)
        self._change_to(candidate)
        return True

    def broken(self, error: MusterError, reason: str) -> None:
        """Go on after the present worker's answer broke off."""
        if self.first_byte_s is None:
            self.move_on(error, reason)
            return
        self._note_failure(reason)
        if self.trail is not None:
            self.trail.attempt_ended(reason)
        if not self._go_on_elsewhere():
            self.fail(error)

    def _go_on_elsewhere(self) -> bool:
        """Have another worker go on with the answer, if the request allows it and there is one."""
        continuation = self.continuation
        if continuation is None or self.attempt is None or not self.attempt.tell(continuation):
            return False
        beginning = continuation.begin()
        if beginning is None:
            return False
        body = continuation.body(beginning)
        self.beginning = beginning
        candidate = None if body is None else self._another()
        if body is None or candidate is None:
            return False
        self.call.body = body
        self.delivery.go_on(by_line=False)
        self.relay.continued += 1
        self._change_to(candidate)
        return True

    def _note_failure(self, reason: str) -> None:
        self.relay.usage.upstream_failed(self._worker, reason)
        self.passage.failed(reason, self.relay.now_s())
        if self.attempt is not None:
            self.attempt.failed(reason)

    def _change_to(self, candidate: Candidate) -> None:
        self._leave()
        self._take(candidate, self.relay.now_s()).begin()

    def _leave(self) -> None:
        """Let go of the worker, or of the wait for one."""
        if self._seeking is not None:
            self._seeking.give_up()
            self._seeking = None
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.leave()

    # --- the caller --------------------------------------------------------------------------------------------------

    def pass_on(self, data: bytes) -> None:
        """Send a part of the answer."""
        self.delivery.send(data)
        if self.first_byte_s is None and self.delivery.began:
            now_s = self.relay.now_s()
            self.first_byte_s = now_s - self._started_s
            self.call.body = self.request.body = b""  # nobody else will be asked
            if self.attempt is not None:
                self.attempt.first_byte_came(now_s)

    def answered(self, data: bytes, now_s: float) -> None:
        """Take the last part of the answer, or all of it, to be sent at the end of this turn."""
        if self.first_byte_s is None:
            self.first_byte_s = now_s - self._started_s
        self._rest, self._answered_s = data, now_s
        self.relay.turn.answer(self)

    def finish(self) -> None:
        if not self._over:
            self.delivery.end(self._rest)
            self._close(self.delivery.status, now_s=self._answered_s)

    def pause(self) -> None:
        self.paused = True
        if self.attempt is not None:
            self.attempt.pause()

    def resume(self) -> None:
        self.paused = False
        if self.attempt is not None:
            self.attempt.resume()

    def client_gone(self) -> None:
        if not self._over:
            self.delivery.keep_alive = False
            self._close(CLIENT_GONE)

    def caller_is_stuck(self) -> None:
        self.client.transport.abort()
        self.client_gone()

    # --- the end -----------------------------------------------------------------------------------------------------

    def check(self, now_s: float) -> None:
        if self._seeking is not None:
            self._seeking.check(now_s)
        elif self.attempt is not None:
            self.attempt.check(now_s)

    def fail(self, error: MusterError) -> None:
        if self._over:
            return
        if isinstance(error, ModelNotFound):
            error = self.meter.account.allowance.as_told(error, self.call.model)
        if self.delivery.began:
            self.delivery.break_off(error_frame(self.call.dialect, error))
            self._close(error.http_status, error.code)
        else:
            self.reply(error_reply(self.call.dialect, error, self.call.model), error.code)

    def reply(self, reply: Reply, error: str | None = None) -> None:
        """Answer in our own words; nothing of the engine's has been sent."""
        delivery = self.delivery
        lines = reply.all_lines
        if self.attempt is not None:
            lines += worker_line(self._worker)
        lines += b"x-correlation-id: %b\r\n" % self.request.correlation_id
        if not delivery.began:
            delivery.prepare(reply.status, lines, length=len(reply.body), streamed=False, by_line=False)
        delivery.end(reply.body)
        self._close(reply.status, error)

    def _close(self, status: int, error: str | None = None, *, now_s: float | None = None) -> None:
        self._over = True
        relay = self.relay
        sharing = relay.router.in_flight.get(self._worker, 1)  # this one among them
        self._outcome = status, error, relay.now_s() if now_s is None else now_s, sharing
        self._leave()
        relay.active.discard(self)
        relay.turn.count(self)
        self.client.exchange = None
        if status != CLIENT_GONE:
            self.client.answered(keep_alive=self.delivery.keep_alive)

    def reckon(self) -> Finished:
        """Learn from it, and say what is to be counted; nobody waits for that."""
        relay = self.relay
        status, error, ended_s, sharing = self._outcome
        use = self.meter.ended(self._worker, ended_s - self._asked_s, sharing)
        if self.trail is not None:
            self.trail.end(status, error)
        self.passage.end(status, error, ended_s)
        if status == _OK and self.first_byte_s is not None:
            relay.admission.learn(self.call.model, ended_s - self._asked_s)
            if self.parts > 1 and self.call.stream:
                took_s = ended_s - self._started_s - self.first_byte_s
                relay.router.learn(self._worker, self.call.model, self.parts - 1, took_s)
        return Finished(
            self.call.path,
            status,
            self.call.model,
            self._worker,
            self.attempts,
            self.first_byte_s,
            ended_s - self._started_s,
            self.delivery.bytes_sent,
            error,
            self.parts if self.call.stream else 0,
            self.request.correlation_id,
            use,
        )
