"""Traces in tests: a Tracer that only remembers, and a collector that takes what OpenTelemetry sends."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from muster.domain.trace import About, SpanKind


class RememberedSpan:
    def __init__(self, number: int, name: str, parent: str | None, about: dict[str, Any]) -> None:
        self.name = name
        self.parent = parent
        self.about = about
        self.error: str | None = None
        self.ended = False
        self.traceparent = f"00-{1:032x}-{number:016x}-01"

    def end(self, about: About | None = None, *, error: str | None = None) -> None:
        assert not self.ended, f"{self.name} ended twice"
        self.about |= about or {}
        self.error = error
        self.ended = True


class RememberingTracer:
    """A Tracer."""

    def __init__(self) -> None:
        self.spans: list[RememberedSpan] = []

    def begin(
        self, name: str, kind: SpanKind, parent: str | None, about: About, *, begun_ms: int | None = None
    ) -> RememberedSpan:
        known = dict(about) | {"kind": kind} | ({} if begun_ms is None else {"begun_ms": begun_ms})
        self.spans.append(RememberedSpan(len(self.spans) + 1, name, parent or None, known))
        return self.spans[-1]


class Sent:
    """A span as the collector got it."""

    def __init__(self, service: str, span: Any) -> None:
        self.service = service
        self.name: str = span.name
        self.trace: str = span.trace_id.hex()
        self.id: str = span.span_id.hex()
        self.parent: str = span.parent_span_id.hex()
        self.about = {item.key: item.value.string_value or item.value.int_value for item in span.attributes}
        self.failed: bool = span.status.code == 2


class Collector:
    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Sent] = []

    def named(self, name: str) -> list[Sent]:
        return [span for span in self.spans if span.name == name]

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {item.key: item.value.string_value for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [Sent(about["service.name"], span) for span in scope.spans]


@contextmanager
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            found.take(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    yield found
    server.shutdown()
    server.server_close()
    serving.join()
