"""The spans of one request: itself, and each attempt on a worker. Only where traces are kept is there one at all."""

from muster.domain.trace import About, Span, SpanKind, Tracer
from muster.gateway.dialects.call import Call
from muster.gateway.http.request import Request

_TRACEPARENT = b"traceparent"


class Trail:
    def __init__(self, tracer: Tracer, call: Call, request: Request) -> None:
        self._tracer = tracer
        self._headers = request.headers
        parent = request.headers.get(_TRACEPARENT, b"").decode("latin-1")
        about: About = {
            "url.path": call.path,
            "muster.model": call.model,
            "muster.correlation_id": request.correlation_id.decode("latin-1"),
        }
        self._whole = tracer.begin("gateway.request", SpanKind.SERVER, parent, about)
        self._attempt: Span | None = None

    def attempt(self, worker: str, number: int) -> dict[bytes, bytes]:
        """Begin one, and return the headers with which its worker is asked."""
        self.attempt_ended()
        about: About = {"muster.worker": worker, "muster.attempt": number}
        self._attempt = self._tracer.begin("gateway.attempt", SpanKind.CLIENT, self._whole.traceparent, about)
        return self._headers | {_TRACEPARENT: self._attempt.traceparent.encode()}

    def attempt_ended(self, error: str | None = None) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.end(error=error)

    def end(self, status: int, error: str | None) -> None:
        self.attempt_ended(error)
        self._whole.end({"http.response.status_code": status}, error=error)
