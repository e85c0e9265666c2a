"""Callers who have to wait before their answer can begin, for a machine or for a slot: kept believing meanwhile.

What may be sent before an answer begins, without any client taking it for an answer: a comment in OpenAI's stream of
events, a blank before the first line of Ollama's stream of JSON. An answer that is not streamed cannot be begun before
it is known how it ends, so its caller waits in silence.
"""

from typing import Protocol

from muster.domain.service import Dialect
from muster.gateway.dialects.call import Call
from muster.gateway.http.delivery import Delivery
from muster.gateway.http.reply import NDJSON

_EVENTS = b"text/event-stream; charset=utf-8"


class Wait(Protocol):
    """What a request does before it has a worker."""

    def check(self, now_s: float) -> None: ...
    def give_up(self) -> None: ...


class Hold:
    """The line to one caller who waits."""

    def __init__(self, call: Call, delivery: Delivery, correlation_id: bytes, now_s: float, every_s: float) -> None:
        self._call = call
        self._delivery = delivery
        self._correlation_id = correlation_id
        self._spoke_s = now_s
        self._every_s = every_s

    def is_due(self, now_s: float) -> bool:
        """Tell whether there has been silence for long enough for a proxy to lose patience."""
        return self._call.stream and now_s - self._spoke_s >= self._every_s

    def say(self, words: str, now_s: float) -> None:
        self._spoke_s = now_s
        events = self._call.dialect is not Dialect.OLLAMA
        if not self._delivery.began:
            lines = b"content-type: %b\r\ncache-control: no-cache\r\nx-correlation-id: %b\r\n"
            lines %= (_EVENTS if events else NDJSON, self._correlation_id)
            self._delivery.prepare(200, lines, length=None, streamed=True, by_line=False)
        line = " ".join(words.split())  # whatever they are: a comment ends with its line
        self._delivery.send(b": %b\n\n" % line.encode() if events else b" ")
