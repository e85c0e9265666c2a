"""One request on its way: a worker is reserved, asked, and its answer passed on as it comes.

Until the first byte of the answer's body has gone to the caller, any failure moves on to the next worker; after it the
caller is told in its own dialect. Every way out leads through `_close`, which gives the reservation back.
"""

import asyncio
import contextlib
from collections.abc import Hashable
from typing import Protocol

from muster.domain.service import Dialect
from muster.errors import ModelNotFound, MusterError, NotFound, NoWorker, UpstreamFailed, UpstreamTimeout
from muster.gateway.admission.holding import Hold, Wait
from muster.gateway.admission.waking import still_asleep
from muster.gateway.asking import put, question
from muster.gateway.continuation import CONNECTORS, Beginning, Continuation, Spliced, continuation, for_engine
from muster.gateway.dialects.call import Call
from muster.gateway.dialects.chat_answer import error_text
from muster.gateway.dialects.ending import Ending, ending_of
from muster.gateway.dialects.openai import RESPONSES
from muster.gateway.dialects.responses_request import NotTranslatable
from muster.gateway.dialects.shape import engine_error_reply, error_frame, error_reply
from muster.gateway.dialects.translate_answer import Translation
from muster.gateway.figures.trail import Trail
from muster.gateway.figures.usage import CLIENT_GONE, Finished
from muster.gateway.http.delivery import Delivery
from muster.gateway.http.pins import pinned
from muster.gateway.http.reply import Reply
from muster.gateway.http.request import Request
from muster.gateway.http.upstream import AnswerHead, Endpoint, UpstreamConnection
from muster.gateway.metering.meter import Meter
from muster.gateway.relay import Relay, Running
from muster.gateway.routing.route import Choice
from muster.gateway.seeking import kind_of, reserve, slots_for
from muster.gateway.trust.conduct import Watch
from muster.placement.candidate import Candidate
from muster.placement.wish import Wish

# The engine says that it cannot now, not that the request is wrong: another may.
_BUSY = 429
_TRY_ANOTHER = frozenset({_BUSY, 502, 503, 504})
_TRY_LATER = frozenset({_BUSY, 503})
_OK = 200
# The engine does not have this path, or not for the model that it serves.
_NOT_SERVED = frozenset({404, 405, 501})
_FIRST_ERROR = 400
_ERROR_PARTS_MAX = 16  # of an engine's error; only its sentence is told
_STREAMS = (b"text/event-stream", b"application/x-ndjson")


class PathNotServed(NotFound):
    code = "path_not_served"


class Client(Protocol):
    """The caller's connection, as far as an exchange needs it."""

    transport: asyncio.Transport
    exchange: Running | None

    def answered(self, *, keep_alive: bool) -> None: ...


class Exchange:
    """One request and the attempts to have it answered. It is the Asker of the connection it waits for."""

    # What most requests never change stands here once, not in each of them.
    _attempts = 0
    _tried: frozenset[str] = frozenset()
    _candidate: Candidate | None = None
    _pins: Wish | None = None
    _worker = ""  # its key
    _endpoint: Endpoint | None = None
    _upstream: UpstreamConnection | None = None
    _question = b""
    _head: AnswerHead | None = None
    _translation: Translation | None = None
    _engine_error: list[bytes] | None = None  # collected, to be told in the other dialect
    _ending: Ending | None = None  # of a stream whose last line is to say that it is whole
    _watch: Watch | None = None
    _continuation: Continuation | None = None  # of a stream that could be gone on with elsewhere
    _beginning: Beginning | None = None  # what an earlier worker has said of this answer
    _first_byte_s: float | None = None
    _quiet_since_s = 0.0
    _heard = False
    _parts = 0  # in which the answer came
    _paused = False
    _over = False
    _waking: Wait | None = None  # for a machine or a slot
    _trail: Trail | None = None

    def __init__(self, relay: Relay, call: Call, request: Request, client: Client, meter: Meter) -> None:
        self.call = call
        self._meter = meter
        self.client = client
        self._relay = relay
        self._request = request
        self._delivery = Delivery(client.transport, http_1_0=request.http_1_0, keep_alive=request.keep_alive)
        self._started_s = self._attempt_s = relay.clock.monotonic_s()
        self._passage = relay.decisions.begin(call, request.correlation_id, relay.clock.now_ms(), self._started_s)

    @property
    def using(self) -> tuple[str, str]:
        return ("" if self._candidate is None else self._worker), self.call.model

    def start(self) -> None:
        self.client.exchange = self
        self._relay.active.add(self)
        if self._relay.tracer is not None:
            self._trail = Trail(self._relay.tracer, self.call, self._request)
        try:
            self._pins = pinned(self._request.headers)
            if self._relay.admission.is_busy:
                self._relay.admission.look_at(self.call.model)
            candidate = self.reserve()
        except (ModelNotFound, NoWorker) as error:
            self._wake(error)
        except MusterError as error:
            self.fail(error)
        else:
            self._go_on(candidate)

    def _go_on(self, candidate: Candidate | None) -> None:
        """Ask this worker; without one stand in the line of the model."""
        if candidate is not None:
            self._attempt(candidate)
            return
        now_s = self._relay.clock.monotonic_s()
        try:
            waiting = self._waking = self._relay.admission.join(self, self._request, self._hold(now_s), now_s)
        except MusterError as error:
            self.fail(error)
        else:
            self._passage.waits("a free slot", now_s, waiting.ticket.priority, waiting.ticket.weight)

    def _hold(self, now_s: float) -> Hold:
        every_s = self._relay.limits.wake_keepalive_s
        return Hold(self.call, self._delivery, self._request.correlation_id, now_s, every_s)

    # --- in line, as Applicant ---------------------------------------------------------------------------------------

    def reserve(self) -> Candidate | None:
        return reserve(self._relay, self.call, self._request.headers, self._tried, self._pins)

    @property
    def kind(self) -> Hashable:
        return kind_of(self.call, self._request.headers)

    def slots(self) -> int:
        return slots_for(self._relay, self.call)

    def admitted(self, candidate: Candidate) -> None:
        """Take the slot at once, and begin when whoever gave it back is done with that."""
        self._waking = None
        self._candidate, self._worker = candidate, candidate.key
        self._attempt_s = self._relay.clock.monotonic_s()
        asyncio.get_running_loop().call_soon(self._begin, candidate, self._relay.router.last_choice)

    def _begin(self, candidate: Candidate, choice: Choice | None) -> None:
        if not self._over:
            self._attempt(candidate, choice)

    def refused(self, error: MusterError) -> None:
        self._waking = None
        self.fail(error)

    # --- for a machine -----------------------------------------------------------------------------------------------

    def _wake(self, error: MusterError) -> None:
        """Wait for a machine that is started for this model; `error` stands if there is none.

        It stands for who asked for certain workers, too: no other machine would do.
        """
        try:
            if self._pins is None:
                self._waking = self._relay.wakings.begin(self.call, self._hold(self._attempt_s), self._woken)
        except MusterError as refusal:
            error = refusal
        if self._waking is None:
            self.fail(error)
        else:
            self._passage.waits("a machine for the model", self._attempt_s)

    def _woken(self, problem: MusterError | None) -> None:
        self._waking = None
        self._attempt_s = self._relay.clock.monotonic_s()
        try:
            if problem is not None:
                raise problem
            candidate = self.reserve()
        except MusterError as error:
            self.fail(still_asleep(error))
        else:
            self._go_on(candidate)

    # --- attempts ----------------------------------------------------------------------------------------------------

    def _attempt(self, candidate: Candidate, choice: Choice | None = None) -> None:
        call = self.call
        self._candidate = candidate
        self._worker = candidate.key
        self._attempts += 1
        self._passage.goes_to(candidate.key, choice or self._relay.router.last_choice, self._attempt_s)
        relay = self._relay
        self._watch = relay.conduct.watch(candidate, call, self._attempt_s, relay.router.in_flight[candidate.key])
        try:
            endpoint = self._endpoint = self._relay.upstreams.endpoint(candidate.url)
            path, body, self._translation = put(call, candidate, relay.limits, relay.clock, relay.chat_only)
        except UpstreamFailed as error:
            self._move_on(error, "url")
            return
        except NotTranslatable as error:
            self._pass_over(error)
            return
        except MusterError as error:
            self.fail(error)
            return
        if not path:
            self._reply(Reply(body=body))
            return
        if self._beginning is not None:
            self._translation = Spliced(call, self._beginning, self._worker, self._translation)
            body = for_engine(path, body, candidate.connector)
        headers = self._request.headers
        if self._trail is not None:
            headers = self._trail.attempt(self._worker, self._attempts)
        self._question = question(endpoint, path, call.content_type, headers, self._request.correlation_id, body)
        connection = endpoint.take()
        if connection is None:
            self._connect(endpoint)
        else:
            self._ask(connection)

    @property
    def _sharing(self) -> int:
        """How many requests its worker has from here, this one among them."""
        return self._relay.router.in_flight.get(self._worker, 1)

    def _connect(self, endpoint: Endpoint) -> None:
        self._relay.connecting(asyncio.get_running_loop().create_task(self._connected(endpoint)))

    async def _connected(self, endpoint: Endpoint) -> None:
        """Ask on the new connection; one that comes too late for this attempt serves the next request."""
        attempt = self._attempts
        try:
            connection = await endpoint.connect()
        except (OSError, UnicodeError) as error:
            if not self._over and attempt == self._attempts:
                late = isinstance(error, TimeoutError)
                why = "did not accept a connection in time" if late else f"refused: {error}"
                self._move_on(UpstreamFailed(f"{self._worker} {why}"), "connect_timeout" if late else "connect")
            return
        if self._over or attempt != self._attempts:
            endpoint.give_back(connection)
        else:
            self._ask(connection)

    def _ask(self, connection: UpstreamConnection) -> None:
        self._upstream = connection
        connection.ask(self, self._question)

    def _another(self) -> Candidate | None:
        """Reserve a worker that has not been tried."""
        self._tried |= {self._worker}
        if self._attempts >= self._relay.limits.attempts_max:
            return None
        with contextlib.suppress(MusterError):  # why nobody else can be asked matters less than why this one failed
            while True:
                candidate = self.reserve()
                if candidate is None or self._first_byte_s is None or candidate.connector in CONNECTORS:
                    return candidate
                self._relay.router.release(candidate)
                self._tried |= {candidate.key}
        return None

    def _move_on(self, error: MusterError, reason: str) -> None:
        self._note_failure(reason)
        if self._trail is not None:
            self._trail.attempt_ended(reason)
        candidate = self._another()
        if candidate is None:
            self.fail(error)
        else:
            self._change_to(candidate)

    def _pass_over(self, error: MusterError) -> None:
        """Ask another worker for what this one cannot be asked, which is no failure of it."""
        candidate = self._another()
        if candidate is None:
            self.fail(error)
        else:
            self._change_to(candidate)

    def _ask_in_chat(self) -> None:
        """Ask the same worker, which keeps its slot, in the way that all have, and remember that."""
        now_s = self._relay.clock.monotonic_s()
        self._relay.chat_only.note(self._worker, now_s)
        self._passage.failed("not_served", now_s)
        candidate, self._candidate = self._candidate, None
        if candidate is not None:
            self._change_to(candidate)

    def _note_failure(self, reason: str) -> None:
        self._relay.usage.upstream_failed(self._worker, reason)
        self._passage.failed(reason, self._relay.clock.monotonic_s())
        if self._watch is not None:
            self._watch.failed(reason)

    def _change_to(self, candidate: Candidate) -> None:
        self._leave()
        self._head = self._engine_error = self._ending = None
        self._attempt_s = self._relay.clock.monotonic_s()
        self._attempt(candidate)

    def _leave(self) -> None:
        """Let go of the worker and of what is asked of it, or of the wait for one."""
        waking, self._waking = self._waking, None
        if waking is not None:
            waking.give_up()
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.let_go()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.drop()
        candidate, self._candidate = self._candidate, None
        if candidate is not None:
            self._relay.router.release(candidate)

    # --- the answer, as Asker ----------------------------------------------------------------------------------------

    def answer_began(self, head: AnswerHead) -> None:
        self._head = head
        if self.call.path == RESPONSES and self._translation is None and self._is_not_served(head):
            self._ask_in_chat()
            return
        if (head.status in _TRY_ANOTHER or self._is_not_served(head)) and self._turned_away(head.status):
            return
        in_own_words = self._translation is not None or self.call.dialect is Dialect.ANTHROPIC
        if head.status >= _FIRST_ERROR and (in_own_words or self._delivery.began or self._is_not_served(head)):
            self._engine_error = []
            return
        lines = self._own_lines(head)
        if self._translation is not None:
            lines += b"content-type: %b\r\n" % self._translation.content_type
            if not self._delivery.began:
                self._delivery.prepare(head.status, lines, length=None, streamed=self.call.stream, by_line=False)
            return
        if head.status in _TRY_LATER and not head.fields.retry_after:
            lines += b"retry-after: 1\r\n"
        streamed = head.fields.content_type.startswith(_STREAMS)
        by_line = streamed and not head.fields.encoded
        if self._delivery.began:
            self._delivery.go_on(by_line=by_line)
        else:
            self._delivery.prepare(
                head.status, head.fields.lines + lines, length=head.length, streamed=streamed, by_line=by_line
            )
        if by_line and head.status < _FIRST_ERROR:
            self._ending = ending_of(self.call.path)

    def _turned_away(self, status: int) -> bool:
        """Ask another worker, if there is one, as this one says that it cannot now; to lack a path is no failure."""
        if status in _TRY_ANOTHER:
            self._note_failure(f"status_{status}")
        candidate = self._another()
        if candidate is None:
            return False
        if self._trail is not None:
            self._trail.attempt_ended(f"status_{status}")
        self._change_to(candidate)
        return True

    def _own_lines(self, head: AnswerHead) -> bytes:
        """Return the header lines that are ours, and find out whether this answer could be gone on with."""
        lines = b"x-muster-worker: %b\r\nx-correlation-id: %b\r\n" % (
            self._worker.encode(),
            self._request.correlation_id,
        )
        if self.call.stream and self._beginning is None and head.status < _FIRST_ERROR and not head.fields.encoded:
            self._continuation = continuation(self.call, self._request.headers)
            if self._continuation is not None:
                lines += b"x-muster-continuable: yes\r\n"
        return lines + self._meter.began(head.status, self._sharing, self._relay.clock.monotonic_s())

    def _is_not_served(self, head: AnswerHead) -> bool:
        return self.call.optional and head.status in _NOT_SERVED

    def answer_continued(self, data: bytes) -> None:
        self._heard = True
        self._parts += 1
        self._meter.take(data)
        if self._watch is not None:
            self._watch.heard(self._relay.clock.monotonic_s())
        if self._engine_error is not None:
            if len(self._engine_error) < _ERROR_PARTS_MAX:
                self._engine_error.append(data)
            return
        if self._translation is not None:
            try:
                data = self._translation.feed(data)
            except MusterError as error:
                self._broken(error, "answer")
                return
        elif self._ending is not None:
            self._ending.feed(data)
        delivery = self._delivery
        first = self._first_byte_s is None
        self._pass_on(data)
        if first and delivery.began:
            self._note_first_byte()

    def _pass_on(self, data: bytes) -> None:
        self._delivery.send(data)
        if self._continuation is not None:
            self._continuation.note(data)

    def answer_ended(self, data: bytes) -> None:
        self._upstream = None
        if self._engine_error is not None:
            self._pass_on_error(b"".join([*self._engine_error, data]))
            return
        self._meter.take(data)
        now_s = self._relay.clock.monotonic_s()
        if data and self._watch is not None:
            self._watch.heard(now_s)
        try:
            if self._translation is not None:
                data = self._translation.feed(data) + self._translation.finish()
            elif self._ending is not None:
                self._ending.feed(data)
                if not self._ending.told:
                    if self._first_byte_s is not None:
                        self._pass_on(data)
                    raise UpstreamFailed(f"{self._worker} ended its answer before it was complete")
        except MusterError as error:
            self._broken(error, "answer")
            return
        if self._watch is not None and self._head is not None:
            self._watch.ended(self._head.status)
        if self._first_byte_s is None:
            self._first_byte_s = now_s - self._started_s
        self._delivery.end(data)
        self._close(self._delivery.status, now_s=now_s)

    def answer_lost(self, reason: str) -> None:
        if self._ending is not None and self._ending.told:
            self.answer_ended(b"")  # all that was to be said has been
            return
        upstream, self._upstream = self._upstream, None
        if self._head is None and upstream is not None and upstream.used and self._endpoint is not None:
            self._connect(self._endpoint)  # it had died while it was idle, which says nothing about the worker
        else:
            self._broken(UpstreamFailed(f"{self._worker} {reason}"), "lost")

    def _broken(self, error: MusterError, reason: str) -> None:
        if self._first_byte_s is None:
            self._move_on(error, reason)
            return
        self._note_failure(reason)
        if self._trail is not None:
            self._trail.attempt_ended(reason)
        if not self._go_on_elsewhere():
            self.fail(error)

    def _go_on_elsewhere(self) -> bool:
        """Have another worker go on with the answer, if the request allows it and there is one."""
        beginning = None if self._continuation is None else self._continuation.begin()
        if self._continuation is None or beginning is None:
            return False
        body = self._continuation.body(beginning)
        candidate = None if body is None else self._another()
        if body is None or candidate is None:
            return False
        self._beginning = beginning
        self.call.body = body
        self._delivery.go_on(by_line=False)
        self._quiet_since_s = self._relay.clock.monotonic_s()
        self._relay.continued += 1
        self._change_to(candidate)
        return True

    def _pass_on_error(self, body: bytes) -> None:
        head = self._head
        status = 502 if head is None else head.status
        if self._watch is not None:
            self._watch.ended(status)
        if head is not None and self._is_not_served(head):
            call = self.call
            said = f"{self._worker} answered {status} ({error_text(body)})"
            self.fail(PathNotServed(f"nobody who has the model {call.model} serves {call.path}: {said}", field="model"))
        elif head is None or self._delivery.began:
            self.fail(UpstreamFailed(error_text(body)))
        else:
            self._reply(engine_error_reply(self.call.dialect, head.status, body))

    def _note_first_byte(self) -> None:
        now_s = self._relay.clock.monotonic_s()
        self._first_byte_s = now_s - self._started_s
        self._quiet_since_s = now_s
        self._question = self.call.body = self._request.body = b""  # nobody else will be asked

    # --- the caller --------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        self._paused = True
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        self._paused = False
        self._heard = True  # the silence was ours
        if self._watch is not None:
            self._watch.excuse(self._relay.clock.monotonic_s())
        if self._upstream is not None:
            self._upstream.resume()

    def client_gone(self) -> None:
        if not self._over:
            self._delivery.keep_alive = False
            self._close(CLIENT_GONE)

    # --- the end -----------------------------------------------------------------------------------------------------

    def check(self, now_s: float) -> None:
        if self._waking is not None:
            self._waking.check(now_s)
        elif self._watch is not None:
            self._check(self._watch, now_s)

    def _check(self, watch: Watch, now_s: float) -> None:
        """Give up on a worker that is silent for longer than it ever is, and on a caller who does not read."""
        if self._heard:
            self._heard = False
            self._quiet_since_s = now_s
            watch.alive(now_s)
        elif self._first_byte_s is not None:
            patience_s = self._relay.limits.idle_timeout_s if self._paused else watch.patience_s
            if now_s - self._quiet_since_s <= patience_s:
                return
            if self._paused:
                self.client.transport.abort()
                self.client_gone()
            else:
                text = f"{self._worker} fell silent for {patience_s:.3g} s in the middle of its answer"
                self._broken(UpstreamTimeout(text), "idle_timeout")
            return
        if self._first_byte_s is None and watch.is_late(now_s, self._attempt_s):
            text = f"{self._worker} did not begin to answer within {watch.first_byte_s:.3g} s"
            self._move_on(UpstreamTimeout(text), "first_byte_timeout")

    def _learn(self, ended_s: float) -> None:
        """Have those who choose know how long this worker took, and how fast its tokens came."""
        relay, call = self._relay, self.call
        relay.admission.learn(call.model, ended_s - self._attempt_s)
        if call.stream and self._first_byte_s is not None:
            took_s = ended_s - self._started_s - self._first_byte_s
            relay.router.learn(self._worker, call.model, self._parts - 1, took_s)

    def fail(self, error: MusterError) -> None:
        if self._over:
            return
        if self._delivery.began:
            self._delivery.break_off(error_frame(self.call.dialect, error))
            self._close(error.http_status, error.code)
        else:
            self._reply(error_reply(self.call.dialect, error, self.call.model), error.code)

    def _reply(self, reply: Reply, error: str | None = None) -> None:
        """Answer in our own words; nothing of the engine's has been sent."""
        delivery = self._delivery
        lines = reply.all_lines
        if self._candidate is not None:
            lines += b"x-muster-worker: %b\r\n" % self._worker.encode()
        lines += b"x-correlation-id: %b\r\n" % self._request.correlation_id
        if not delivery.began:
            delivery.prepare(reply.status, lines, length=len(reply.body), streamed=False, by_line=False)
        delivery.end(reply.body)
        self._close(reply.status, error)

    def _close(self, status: int, error: str | None = None, *, now_s: float | None = None) -> None:
        self._over = True
        relay = self._relay
        ended_s = relay.clock.monotonic_s() if now_s is None else now_s
        use = self._meter.ended(self._worker, ended_s - self._attempt_s, self._sharing)
        self._leave()
        relay.active.discard(self)
        self.client.exchange = None
        if self._trail is not None:
            self._trail.end(status, error)
        self._passage.end(status, error, ended_s)
        if status == _OK and self._first_byte_s is not None:
            self._learn(ended_s)
        relay.record(
            Finished(
                self.call.path,
                status,
                self.call.model,
                self._worker,
                self._attempts,
                self._first_byte_s,
                ended_s - self._started_s,
                self._delivery.bytes_sent,
                error,
                self._parts if self.call.stream else 0,
                self._request.correlation_id,
                use,
            )
        )
        if status != CLIENT_GONE:
            self.client.answered(keep_alive=self._delivery.keep_alive)
