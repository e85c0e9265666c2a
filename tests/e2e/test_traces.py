"""One trace from a request to the service that answers it, over processes, as a collector sees it."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.muster_process import ControlPlane, MusterProcess
from tests.traces import Collector, Sent, collector
from tests.waiting import eventually_sync

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
HEADERS = {"Content-Type": "application/json", "traceparent": f"00-{TRACE}-{CALLER}-01"}
CHAT = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}


class Service:
    """A model server that keeps which trace it was told of."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.traceparents: list[str | None] = []


@contextmanager
def service() -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            known = self.path == "/v1/models"
            self._say({"object": "list", "data": [{"id": "small", "object": "model"}]}, 200 if known else 404)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.traceparents.append(self.headers.get("traceparent"))
            said = {"index": 0, "finish_reason": "stop"}
            if asked.get("stream"):
                body = {"id": "c", "object": "chat.completion.chunk", "choices": [said | {"delta": {"content": "Hi"}}]}
                self._send(f"data: {json.dumps(body)}\n\ndata: [DONE]\n\n".encode(), "text/event-stream")
            else:
                message = {"role": "assistant", "content": "Hi"}
                self._say({"id": "c", "object": "chat.completion", "choices": [said | {"message": message}]})

        def _say(self, content: Any, status: int = 200) -> None:
            self._send(json.dumps(content).encode(), "application/json", status)

        def _send(self, body: bytes, kind: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True  # connections that are kept do not keep us
    server.block_on_close = False
    found = Service(f"http://127.0.0.1:{server.server_address[1]}")
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    yield found
    server.shutdown()
    server.server_close()
    serving.join()


def post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), HEADERS)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def one(found: Collector, name: str) -> Sent:
    (span,) = eventually_sync(lambda: found.named(name))
    assert span.trace == TRACE, name
    return span


def test_a_trace_goes_from_the_caller_to_the_service(tmp_path: Path) -> None:
    with collector() as found, service() as model, ExitStack() as processes:
        tracing = {"MUSTER_OTEL_ENDPOINT": found.url}
        plane = ControlPlane(tmp_path / "plane", env=tracing)
        processes.callback(plane.kill)
        env = {
            "MUSTER_CONTROL_PLANE": plane.url,
            "MUSTER_DATA_DIR": str(tmp_path / "agent" / "data"),
            "MUSTER_ATTACH": f"openai={model.url}",
            "MUSTER_DISCOVER": "false",
            "MUSTER_HEARTBEAT_INTERVAL_S": "0.3",
        }
        agent = MusterProcess(tmp_path / "agent", "agent", env=env | tracing).start()
        processes.callback(agent.kill)
        plane.start()
        eventually_sync(lambda: plane.get("/v1/models")["data"], 30)

        post(f"{plane.url}/v1/chat/completions", CHAT)
        request, attempt = one(found, "gateway.request"), one(found, "gateway.attempt")
        assert (request.service, request.parent) == ("muster-control-plane", CALLER)
        assert attempt.parent == request.id
        assert model.traceparents == [f"00-{TRACE}-{attempt.id}-01"]

        post(f"{plane.url}/api/jobs", {"service_required": "openai", "payload": CHAT})
        run, submit, wait = (one(found, name) for name in ("job.attempt", "job.submit", "job.wait"))
        assert (submit.service, submit.parent) == ("muster-control-plane", CALLER)
        assert (run.service, run.parent, wait.parent) == ("muster-agent", submit.id, submit.id)
        assert submit.about["muster.job_id"] == run.about["muster.job_id"] == wait.about["muster.job_id"]
        assert model.traceparents[1:] == [f"00-{TRACE}-{run.id}-01"]

        for process in (agent, plane):
            assert process.stop() == 0, process.log[-2000:]
