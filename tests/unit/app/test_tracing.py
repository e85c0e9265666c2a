import asyncio
import sys
import threading

import aiohttp
import pytest
from aiohttp import web

from muster.agent.jobs.traced import TRACEPARENT
from muster.app.node import passing_on
from muster.app.tracing import open_tracer
from muster.domain.trace import SpanKind
from muster.errors import SetupError
from muster.settings import Settings, load_settings
from tests.muster_process import free_port
from tests.traces import collector

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_without_a_collector_nothing_of_it_is_there() -> None:
    assert open_tracer(Settings(), "agent") is None


def test_a_collector_must_have_an_address_of_http() -> None:
    with pytest.raises(SetupError, match="otel_endpoint must begin with http"):
        load_settings(env={"MUSTER_OTEL_ENDPOINT": "collector:4318"})


def test_what_is_missing_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    with pytest.raises(SetupError, match="is not installed") as refused:
        open_tracer(Settings(otel_endpoint="http://127.0.0.1:4318"), "agent")
    assert "muster[otel]" in (refused.value.next_step or "")


async def test_spans_reach_the_collector_with_their_parents_and_what_they_are_about() -> None:
    with collector() as found:
        tracer = open_tracer(Settings(otel_endpoint=found.url), "agent")
        assert tracer is not None
        outer = tracer.begin("outer", SpanKind.SERVER, PARENT, {"muster.job_id": "j1"}, begun_ms=1_000)
        inner = tracer.begin("inner", SpanKind.CLIENT, outer.traceparent, {})
        inner.end({"muster.attempt": 2}, error="boom")
        outer.end()
        alone = tracer.begin("alone", SpanKind.INTERNAL, "no traceparent", {})
        alone.end()
        await tracer.stop()

    spans = {span.name: span for span in found.spans}
    assert spans.keys() == {"outer", "inner", "alone"}
    assert {span.service for span in spans.values()} == {"muster-agent"}
    assert (spans["outer"].trace, spans["outer"].parent) == (PARENT[3:35], PARENT[36:52])
    assert (spans["inner"].trace, spans["inner"].parent) == (spans["outer"].trace, spans["outer"].id)
    assert (spans["inner"].failed, spans["outer"].failed) == (True, False)
    assert spans["inner"].about == {"muster.attempt": 2}
    assert spans["alone"].parent == ""
    assert spans["alone"].trace != spans["outer"].trace


async def test_what_its_caller_does_not_record_is_not_recorded_here() -> None:
    with collector() as found:
        tracer = open_tracer(Settings(otel_endpoint=found.url), "agent")
        assert tracer is not None
        span = tracer.begin("unwanted", SpanKind.SERVER, PARENT[:-2] + "00", {})
        span.end()
        await tracer.stop()

    assert span.traceparent.startswith(PARENT[:35])
    assert span.traceparent.endswith("-00")
    assert found.spans == []


async def test_a_collector_that_is_away_holds_nobody_up() -> None:
    tracer = open_tracer(Settings(otel_endpoint=f"http://127.0.0.1:{free_port()}"), "agent")
    assert tracer is not None
    for number in range(10_000):
        tracer.begin(f"span-{number}", SpanKind.INTERNAL, None, {}).end()

    await asyncio.wait_for(tracer.stop(), 10)
    for thread in threading.enumerate():  # daemons, or they would keep the process
        assert thread.daemon or thread is threading.main_thread() or "asyncio" in thread.name


async def test_requests_of_an_attempt_say_to_which_trace_they_belong() -> None:
    heard: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        heard.append(request.headers.get("traceparent"))
        return web.Response()

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with aiohttp.ClientSession(trace_configs=[passing_on()]) as session:
        await session.get(url)
        TRACEPARENT.set(PARENT)
        await session.get(url)
    await runner.cleanup()

    assert heard == [None, PARENT]
