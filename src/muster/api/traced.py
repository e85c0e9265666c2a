"""Jobs as parts of traces: those of their submitters, or traces that begin here."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import msgspec

from muster.domain.job import JobSpec
from muster.domain.trace import Span, SpanKind, Tracer, traceparent_in
from muster.errors import MusterError
from muster.ports import Submitted

Submit = Callable[[Sequence[JobSpec]], Awaitable[list[Submitted]]]


class SubmitSpans:
    """One for each job of a request, from its arrival to when it is stored; none where no traces are kept."""

    def __init__(self, tracer: Tracer | None, parent: str | None, correlation_id: str | None) -> None:
        self._tracer = tracer
        self._parent = traceparent_in(parent)
        self._correlation_id = correlation_id

    @classmethod
    def of(cls, tracer: Tracer | None, headers: Mapping[str, str]) -> "SubmitSpans":
        """Take up the trace of the request with these headers."""
        return cls(tracer, headers.get("traceparent"), headers.get("x-correlation-id"))

    async def around(self, submit: Submit, specs: Sequence[JobSpec]) -> list[Submitted]:
        """Submit the jobs, each with the trace that it is a part of."""
        spans = self._begin(specs)
        try:
            submitted = await submit(self._placed(specs, spans))
        except MusterError as error:
            for span in spans:
                span.end(error=error.code)
            raise
        for span, one in zip(spans, submitted, strict=False):  # there may be no spans
            span.end({"muster.job_id": one.job_id})
        return submitted

    def _begin(self, specs: Sequence[JobSpec]) -> list[Span]:
        if self._tracer is None:
            return []
        about = {} if self._correlation_id is None else {"muster.correlation_id": self._correlation_id}
        begin = partial(self._tracer.begin, "job.submit", SpanKind.PRODUCER, self._parent)
        return [begin({**about, "muster.service": spec.service_required}) for spec in specs]

    def _placed(self, specs: Sequence[JobSpec], spans: list[Span]) -> Sequence[JobSpec]:
        if spans:
            return [_with(spec, span.traceparent) for spec, span in zip(specs, spans, strict=True)]
        return specs if self._parent is None else [_with(spec, self._parent) for spec in specs]


def _with(spec: JobSpec, traceparent: str) -> JobSpec:
    return msgspec.structs.replace(spec, traceparent=traceparent)
