"""Traces by OpenTelemetry, sent by OTLP over HTTP. Off unless a collector is named; then nothing of it is loaded."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog

from muster import __version__
from muster.domain.trace import About, SpanKind, traceparent_in
from muster.errors import SetupError
from muster.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelsSpan

log = structlog.get_logger()

_QUEUE_MAX = 4_096  # spans that wait to be sent; of more, some are dropped
_BATCH_MAX = 512
_EVERY_MS = 1_000
_SEND_TIMEOUT_S = 5.0
_LAST_WORDS_S = 3.0
_TOLD_EVERY_S = 60.0
_USUAL_PATH = "/v1/traces"
_NS_PER_MS = 1_000_000


class OtelSpan:
    """A Span."""

    def __init__(self, span: "OtelsSpan") -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def end(self, about: About | None = None, *, error: str | None = None) -> None:
        from opentelemetry.trace import StatusCode  # noqa: PLC0415 - an extra, loaded where it is used

        if about:
            self._span.set_attributes(about)
        if error is not None:
            self._span.set_status(StatusCode.ERROR, error)
        self._span.end()


class OtelTracer:
    """A Tracer and a Lifecycle. Spans are sent by a thread of their own from a line with a bound."""

    def __init__(self, provider: "TracerProvider", give_up: Callable[[], None]) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - as above

        self._provider = provider
        self._give_up = give_up
        self._tracer = provider.get_tracer("muster", __version__)
        self._kinds = {kind: trace.SpanKind[kind.name] for kind in SpanKind}

    def begin(
        self,
        name: str,
        kind: SpanKind,
        parent: str | None,
        about: About,
        *,
        begun_ms: int | None = None,
    ) -> OtelSpan:
        begun_ns = None if begun_ms is None else begun_ms * _NS_PER_MS
        return OtelSpan(
            self._tracer.start_span(
                name, context=_context_of(parent), kind=self._kinds[kind], attributes=about, start_time=begun_ns
            )
        )

    async def start(self) -> None:
        """Do nothing: the thread that sends has been started with the first span."""

    async def stop(self) -> None:
        """Send what is left, but wait for no collector that is away."""
        ending = threading.Thread(target=self._provider.shutdown, name="last-traces", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, _LAST_WORDS_S)
        if ending.is_alive():
            self._give_up()  # else it goes on trying in the background


def _context_of(parent: str | None) -> "Context":
    from opentelemetry import trace  # noqa: PLC0415 - as above
    from opentelemetry.context import Context  # noqa: PLC0415 - as above

    known = traceparent_in(parent)
    if known is None:
        return Context()
    _, trace_id, span_id, flags = known.split("-")
    remote = trace.SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(int(flags, 16))
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(remote), Context())


def open_tracer(settings: Settings, part: str) -> OtelTracer | None:
    """Return None when no collector is named. `part` is what this process is in traces: control-plane or agent."""
    if not settings.otel_endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - as above
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above
    except ImportError as error:
        raise SetupError(
            f"otel_endpoint is set, but {error.name} is not installed",
            next_step="pip install 'muster[otel]', or unset MUSTER_OTEL_ENDPOINT",
        ) from None
    _tell_of_failures()
    about = {"service.name": f"muster-{part}", "service.version": __version__}
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=_address(settings.otel_endpoint), timeout=_SEND_TIMEOUT_S)
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=_QUEUE_MAX,
            max_export_batch_size=_BATCH_MAX,
            schedule_delay_millis=_EVERY_MS,
        )
    )
    return OtelTracer(provider, exporter.shutdown)


def _address(endpoint: str) -> str:
    return endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + _USUAL_PATH


class _Failures(logging.Handler):
    """A collector that is away is told of now and then, not with every batch."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next_s = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + _TOLD_EVERY_S
            log.warning("traces_not_delivered", why=record.getMessage())


def _tell_of_failures() -> None:
    theirs: Any = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, _Failures) for handler in theirs.handlers):
        theirs.addHandler(_Failures())
        theirs.propagate = False
