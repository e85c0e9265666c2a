"""An attempt as a part of a trace: what it asks of services says to which one it belongs."""

import asyncio
from collections.abc import Awaitable
from contextvars import ContextVar

from muster.domain.job import ClaimedJob
from muster.domain.trace import About, SpanKind, Tracer
from muster.ids import WorkerId
from muster.wire import Outcome

# What requests to services are to say, while an attempt runs.
TRACEPARENT: ContextVar[str | None] = ContextVar("traceparent", default=None)


async def traced(run: Awaitable[Outcome], job: ClaimedJob, tracer: Tracer | None, worker_id: WorkerId) -> Outcome:
    """Run in a span of its own, or where none are made pass on what the job came with."""
    spec = job.spec
    if tracer is None:
        TRACEPARENT.set(spec.traceparent)
        return await run
    about: About = {
        "muster.job_id": spec.job_id,
        "muster.attempt": job.attempt,
        "muster.service": spec.service_required,
        "muster.worker": worker_id,
    }
    span = tracer.begin("job.attempt", SpanKind.CONSUMER, spec.traceparent, about)
    TRACEPARENT.set(span.traceparent)
    try:
        outcome = await run
    except asyncio.CancelledError:
        span.end(error="cancelled")
        raise
    span.end(error=outcome.error.code if outcome.error is not None else None)
    return outcome
