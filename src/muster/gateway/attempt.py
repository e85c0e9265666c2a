"""One worker that is asked, and its answer as it comes.

It ends well, or tells the exchange how it failed; what becomes of the request then is not decided here.
"""

import asyncio
from functools import lru_cache
from typing import Protocol

from muster.domain.service import Dialect
from muster.errors import MusterError, NotFound, UpstreamFailed, UpstreamTimeout
from muster.gateway.asking import put, question
from muster.gateway.continuation import (
    KEPT_BYTES_MAX,
    Beginning,
    Continuation,
    Spliced,
    continuation,
    for_engine,
)
from muster.gateway.dialects.call import Call
from muster.gateway.dialects.chat_answer import error_text
from muster.gateway.dialects.ending import has_told_its_end, tells_its_end
from muster.gateway.dialects.openai import RESPONSES
from muster.gateway.dialects.responses_request import NotTranslatable
from muster.gateway.dialects.shape import engine_error_reply
from muster.gateway.dialects.translate_answer import Translation
from muster.gateway.figures.decisions import Passage
from muster.gateway.figures.trail import Trail
from muster.gateway.http.delivery import Delivery
from muster.gateway.http.reply import Reply
from muster.gateway.http.request import Request
from muster.gateway.http.upstream import AnswerHead, Endpoint, UpstreamConnection
from muster.gateway.metering.counted import Counted
from muster.gateway.metering.meter import Meter
from muster.gateway.relay import Relay
from muster.gateway.trust.conduct import Watch
from muster.placement.candidate import Candidate

# The engine says that it cannot now, not that the request is wrong: another may.
_BUSY = 429
_TRY_ANOTHER = frozenset({_BUSY, 502, 503, 504})
_TRY_LATER = frozenset({_BUSY, 503})
# The engine does not have this path, or not for the model that it serves.
_NOT_SERVED = frozenset({404, 405, 501})
_FIRST_ERROR = 400
_ERROR_PARTS_MAX = 16  # of an engine's error; only its sentence is told
_WORKERS_MAX = 4096


@lru_cache(_WORKERS_MAX)
def worker_line(worker: str) -> bytes:
    return b"x-muster-worker: %b\r\n" % worker.encode()


class PathNotServed(NotFound):
    code = "path_not_served"


class Owner(Protocol):
    """The request that a worker is asked for, and what is to be done with it when that has failed."""

    relay: Relay
    call: Call
    request: Request
    delivery: Delivery
    meter: Meter
    passage: Passage
    trail: Trail | None
    attempt: "Attempt | None"
    attempts: int
    first_byte_s: float | None
    parts: int
    paused: bool
    continuation: Continuation | None
    beginning: Beginning | None

    def pass_on(self, data: bytes) -> None: ...
    def turned_away(self, reason: str, *, failed: bool) -> bool: ...
    def move_on(self, error: MusterError, reason: str) -> None: ...
    def broken(self, error: MusterError, reason: str) -> None: ...
    def fail(self, error: MusterError) -> None: ...
    def reply(self, reply: Reply) -> None: ...
    def answered(self, data: bytes, now_s: float) -> None: ...
    def caller_is_stuck(self) -> None: ...


class Attempt:
    """Holds its worker's slot from the beginning on, until `leave`. It is the Asker of the connection it waits for."""

    __slots__ = (
        "_candidate",
        "_counted",
        "_endpoint",
        "_engine_error",
        "_head",
        "_heard",
        "_owner",
        "_question",
        "_quiet_since_s",
        "_sharing",
        "_tells_its_end",
        "_translation",
        "_upstream",
        "_watch",
        "began_s",
        "worker",
    )

    def __init__(self, owner: Owner, candidate: Candidate, now_s: float) -> None:
        self._owner = owner
        self._candidate = candidate
        self.worker = candidate.key
        self.began_s = self._quiet_since_s = now_s
        self._watch: Watch | None = None
        self._endpoint: Endpoint | None = None
        self._upstream: UpstreamConnection | None = None
        self._question = b""
        self._head: AnswerHead | None = None
        self._translation: Translation | None = None
        self._counted: Counted | None = None  # the answer, unless it is an error
        self._engine_error: list[bytes] | None = None  # collected, to be told in the other dialect
        self._sharing = 1  # how many requests its worker had from here, this one among them
        self._tells_its_end = False  # a stream whose last line is to say that it is whole
        self._heard = False
        owner.passage.goes_to(candidate.key, owner.relay.router.last_choice, now_s)

    def begin(self) -> None:
        owner, candidate = self._owner, self._candidate
        relay, call = owner.relay, owner.call
        owner.attempts += 1
        self._sharing = relay.router.in_flight[candidate.key]
        self._watch = relay.conduct.watch(candidate, call, self.began_s, self._sharing)
        self._put()

    def _put(self) -> None:
        """Ask in the dialect of this worker."""
        owner, candidate = self._owner, self._candidate
        relay, call = owner.relay, owner.call
        try:
            endpoint = self._endpoint = relay.upstreams.endpoint(candidate.url)
            path, body, self._translation = put(call, candidate, relay.limits, relay.clock, relay.chat_only)
        except UpstreamFailed as error:
            owner.move_on(error, "url")
            return
        except NotTranslatable as error:
            if not owner.turned_away("not_served", failed=False):
                owner.fail(error)
            return
        except MusterError as error:
            owner.fail(error)
            return
        if not path:
            owner.reply(Reply(body=body))
            return
        if owner.beginning is not None:
            self._translation = Spliced(call, owner.beginning, self.worker, self._translation)
            body = for_engine(path, body, candidate.connector)
        headers = owner.request.headers
        if owner.trail is not None:
            headers = owner.trail.attempt(self.worker, owner.attempts)
        self._question = question(endpoint, path, call.content_type, headers, owner.request.correlation_id, body)
        connection = endpoint.take()
        if connection is None:
            self._connect(endpoint)
        else:
            self._ask(connection)

    def _connect(self, endpoint: Endpoint) -> None:
        self._owner.relay.connecting(asyncio.get_running_loop().create_task(self._connected(endpoint)))

    async def _connected(self, endpoint: Endpoint) -> None:
        """Ask on the new connection; one that comes too late for this attempt serves the next request."""
        owner = self._owner
        try:
            connection = await endpoint.connect()
        except (OSError, UnicodeError) as error:
            if owner.attempt is self:
                late = isinstance(error, TimeoutError)
                why = "did not accept a connection in time" if late else f"refused: {error}"
                owner.move_on(UpstreamFailed(f"{self.worker} {why}"), "connect_timeout" if late else "connect")
            return
        if owner.attempt is self:
            self._ask(connection)
        else:
            endpoint.give_back(connection)

    def _ask(self, connection: UpstreamConnection) -> None:
        self._upstream = connection
        connection.await_answer(self)
        self._owner.relay.turn.ask(connection, self._question)

    def failed(self, reason: str) -> None:
        if self._watch is not None:
            self._watch.failed(reason)

    def leave(self) -> None:
        """Let go of the worker and of what is asked of it; once."""
        if self._watch is not None:
            self._watch.let_go()
        if self._upstream is not None:
            self._upstream.drop()
            self._upstream = None
        self._owner.relay.router.release(self._candidate)

    # --- the answer, as Asker ----------------------------------------------------------------------------------------

    def answer_began(self, head: AnswerHead) -> None:
        self._head = head
        if head.status >= _FIRST_ERROR and self._is_told_otherwise(head):
            return
        owner, status, fields = self._owner, head.status, head.fields
        lines = self._own_lines(head)
        if self._translation is not None:
            lines += b"content-type: %b\r\n" % self._translation.content_type
            if not owner.delivery.began:
                owner.delivery.prepare(status, lines, length=None, streamed=owner.call.stream, by_line=False)
            return
        if status in _TRY_LATER and not fields.retry_after:
            lines += b"retry-after: 1\r\n"
        if owner.delivery.began:
            owner.delivery.go_on(by_line=fields.by_line)
        else:
            owner.delivery.prepare(
                status, fields.lines + lines, length=head.length, streamed=fields.streamed, by_line=fields.by_line
            )

    def _is_told_otherwise(self, head: AnswerHead) -> bool:
        """Tell whether this error is not passed on as it is: another worker is asked, or it is put in other words."""
        owner, status = self._owner, head.status
        if owner.call.path == RESPONSES and self._translation is None and self._is_not_served(head):
            self._ask_in_chat()
            return True
        busy = status in _TRY_ANOTHER  # to lack a path is no failure
        if (busy or self._is_not_served(head)) and owner.turned_away(f"status_{status}", failed=busy):
            return True
        in_own_words = self._translation is not None or owner.call.dialect is Dialect.ANTHROPIC
        if in_own_words or owner.delivery.began or self._is_not_served(head):
            self._engine_error = []
        return self._engine_error is not None

    def _ask_in_chat(self) -> None:
        """Ask once more in the way that all have, and remember that."""
        owner, relay = self._owner, self._owner.relay
        if owner.trail is not None:
            owner.trail.attempt_ended("not_served")
        relay.chat_only.note(self.worker, relay.clock.monotonic_s())
        upstream, self._upstream, self._head = self._upstream, None, None
        if upstream is not None:
            upstream.drop()
        self._put()

    def _is_not_served(self, head: AnswerHead) -> bool:
        return self._owner.call.optional and head.status in _NOT_SERVED

    def _own_lines(self, head: AnswerHead) -> bytes:
        """Return the header lines that are ours, and find out whether this answer could be gone on with."""
        owner = self._owner
        lines = b"%bx-correlation-id: %b\r\n%b" % (
            worker_line(self.worker),
            owner.request.correlation_id,
            owner.meter.began(head.status, self._sharing, owner.relay.now_s),
        )
        if head.status >= _FIRST_ERROR:
            return lines
        counted = self._counted = owner.meter.counted
        if head.fields.by_line and self._translation is None:
            self._tells_its_end = tells_its_end(owner.call.path)
        if owner.call.stream and owner.beginning is None and head.fields.by_line:
            owner.continuation = continuation(owner.call, owner.request.headers)
            if owner.continuation is not None:
                lines += b"x-muster-continuable: yes\r\n"
                if counted is not None and self._translation is None:
                    counted.keep_all(KEPT_BYTES_MAX)
        return lines

    def answer_continued(self, data: bytes) -> None:
        owner = self._owner
        self._heard = True
        owner.parts += 1
        if self._watch is not None:
            self._watch.heard(owner.relay.now_s())
        if self._counted is not None:
            self._counted.take(data)
        if self._engine_error is not None:
            if len(self._engine_error) < _ERROR_PARTS_MAX:
                self._engine_error.append(data)
            return
        if self._translation is not None:
            try:
                data = self._translation.feed(data)
            except MusterError as error:
                owner.broken(error, "answer")
                return
            if owner.continuation is not None:
                owner.continuation.note(data)
        owner.pass_on(data)

    def answer_ended(self, data: bytes) -> None:
        self._upstream = None
        owner, counted = self._owner, self._counted
        if self._engine_error is not None:
            self._pass_on_error(b"".join([*self._engine_error, data]))
            return
        now_s = owner.relay.now_s()
        if data and self._watch is not None:
            self._watch.heard(now_s)
        if counted is not None:
            counted.end(data)
        try:
            if self._translation is not None:
                data = self._translation.feed(data) + self._translation.finish()
            elif not self._is_whole:
                if owner.first_byte_s is not None:
                    owner.pass_on(data)
                raise UpstreamFailed(f"{self.worker} ended its answer before it was complete")
        except MusterError as error:
            owner.broken(error, "answer")
            return
        if self._watch is not None and self._head is not None:
            self._watch.ended(self._head.status)
            self._watch = None
        owner.answered(data, now_s)

    def _end_unframed(self) -> None:
        """All that was to be said has been, only the end of its framing does not come."""
        upstream = self._upstream
        self.answer_ended(b"")
        if upstream is not None:
            upstream.drop()

    @property
    def _is_whole(self) -> bool:
        if not self._tells_its_end:
            return True
        return self._counted is not None and has_told_its_end(self._owner.call.path, self._counted.held)

    def answer_lost(self, reason: str) -> None:
        if self._tells_its_end and self._is_whole:
            self.answer_ended(b"")  # all that was to be said has been
            return
        upstream, self._upstream = self._upstream, None
        if self._head is None and upstream is not None and upstream.used and self._endpoint is not None:
            self._connect(self._endpoint)  # it had died while it was idle, which says nothing about the worker
        else:
            self._owner.broken(UpstreamFailed(f"{self.worker} {reason}"), "lost")

    def tell(self, continuation: Continuation) -> bool:
        """Tell what this worker has said, after that broke off; return whether all of it is known."""
        if self._translation is not None or self._counted is None:
            return True  # what was translated was noted as it went
        said = self._counted.whole()
        if said is None:
            return False
        continuation.note(said)
        return True

    def _pass_on_error(self, body: bytes) -> None:
        owner, head = self._owner, self._head
        status = 502 if head is None else head.status
        if self._watch is not None:
            self._watch.ended(status)
        if head is not None and self._is_not_served(head):
            call = owner.call
            said = f"{self.worker} answered {status} ({error_text(body)})"
            text = f"nobody who has the model {call.model} serves {call.path}: {said}"
            owner.fail(PathNotServed(text, field="model"))
        elif head is None or owner.delivery.began:
            owner.fail(UpstreamFailed(error_text(body)))
        else:
            owner.reply(engine_error_reply(owner.call.dialect, head.status, body))

    # --- while it lasts ----------------------------------------------------------------------------------------------

    def pause(self) -> None:
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        self._heard = True  # the silence was ours
        if self._watch is not None:
            self._watch.excuse(self._owner.relay.now_s())
        if self._upstream is not None:
            self._upstream.resume()

    def first_byte_came(self, now_s: float) -> None:
        """Count silence anew, and keep no question: nobody else will be asked it."""
        self._quiet_since_s = now_s
        self._question = b""

    def check(self, now_s: float) -> None:
        """Give up on a worker that is silent for longer than it ever is, and on a caller who does not read."""
        watch, owner = self._watch, self._owner
        if watch is None:
            return
        if self._heard:
            self._heard = False
            self._quiet_since_s = now_s
            watch.alive(now_s)
        elif owner.first_byte_s is not None:
            patience_s = owner.relay.limits.idle_timeout_s if owner.paused else watch.patience_s
            if now_s - self._quiet_since_s <= patience_s:
                return
            if owner.paused:
                owner.caller_is_stuck()
            elif self._tells_its_end and self._is_whole:
                self._end_unframed()
            else:
                text = f"{self.worker} fell silent for {patience_s:.3g} s in the middle of its answer"
                owner.broken(UpstreamTimeout(text), "idle_timeout")
            return
        if owner.first_byte_s is None and watch.is_late(now_s, self.began_s):
            text = f"{self.worker} did not begin to answer within {watch.first_byte_s:.3g} s"
            owner.move_on(UpstreamTimeout(text), "first_byte_timeout")
