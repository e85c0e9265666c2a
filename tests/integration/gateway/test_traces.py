"""The spans of a request, and what its worker is told of them."""

from muster.gateway import GatewayLimits
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import Asked, Engine, hang, llama, refuse
from tests.integration.gateway.fleet import FleetTwin, worker
from tests.integration.gateway.wire import Answer, chat, post
from tests.traces import RememberingTracer

PATH = "/v1/chat/completions"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Listening:
    """An engine's behaviour that keeps what it was told."""

    def __init__(self) -> None:
        self.traceparents: list[str | None] = []

    async def __call__(self, asked: Asked) -> None:
        self.traceparents.append(asked.headers.get("traceparent"))
        await llama(asked)


async def ask(door: Door, *headers: str, model: str = "smollm2-135m") -> Answer:
    async with await door.wire() as wire:
        wire.send(post(PATH, chat(model=model), *headers))
        return await wire.answer()


async def test_a_request_is_a_span_in_its_callers_trace_and_its_worker_continues_it() -> None:
    tracer, heard = RememberingTracer(), Listening()
    async with Engine(heard) as engine, opened(FleetTwin(worker(engine.url)), tracer=tracer) as door:
        answer = await ask(door, f"traceparent: {PARENT}", "x-correlation-id: mine-1")

    assert answer.status == 200
    whole, attempt = tracer.spans
    assert (whole.name, whole.parent, whole.error) == ("gateway.request", PARENT, None)
    assert whole.about["http.response.status_code"] == 200
    assert whole.about["muster.correlation_id"] == "mine-1"
    assert (attempt.name, attempt.parent, attempt.error) == ("gateway.attempt", whole.traceparent, None)
    assert heard.traceparents == [attempt.traceparent]
    assert all(span.ended for span in tracer.spans)


async def test_each_attempt_is_a_span_of_its_own() -> None:
    tracer, heard = RememberingTracer(), Listening()
    async with Engine(refuse) as bad, Engine(heard) as good:
        fleet = FleetTwin(worker(bad.url, "node-a"), worker(good.url, "node-b"))
        async with opened(fleet, tracer=tracer) as door:
            for _ in range(2):
                assert (await ask(door)).status == 200

    failed = [span for span in tracer.spans if span.about.get("muster.worker") == "node-a/llama"]
    assert [span.error for span in failed] == ["status_503"]
    assert [span.name for span in tracer.spans].count("gateway.attempt") == 3
    assert all(span.ended for span in tracer.spans)


async def test_what_fails_is_told_with_its_reason() -> None:
    tracer = RememberingTracer()
    limits = GatewayLimits(first_byte_timeout_s=0.1)
    async with Engine(hang) as engine, opened(FleetTwin(worker(engine.url)), tracer=tracer, limits=limits) as door:
        assert (await ask(door)).status == 504
        assert (await ask(door, model="nobody-has-it")).status == 404

    errors = [(span.name, span.error) for span in tracer.spans]
    assert errors == [
        ("gateway.request", "upstream_timeout"),
        ("gateway.attempt", "first_byte_timeout"),
        ("gateway.request", "model_not_found"),
    ]
    assert all(span.ended for span in tracer.spans)


async def test_without_traces_the_callers_goes_on_to_the_worker_as_it_came() -> None:
    heard = Listening()
    async with Engine(heard) as engine, opened(FleetTwin(worker(engine.url))) as door:
        await ask(door, f"traceparent: {PARENT}")

    assert heard.traceparents == [PARENT]
