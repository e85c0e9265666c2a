"""SIGKILL of a gateway in the middle of an answer, with real processes and a real store."""

import http.client
import json
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.faults import model_server
from tests.faults.conftest import FAST
from tests.muster_process import ControlPlane
from tests.valkey_server import ValkeyServer
from tests.waiting import eventually_sync

WORDS = [f" word{number}" for number in range(12)]
STORY = "".join(WORDS)
CHAT = {"model": "smol", "messages": [{"role": "user", "content": "Tell."}], "stream": True}


class Teller(model_server.Handler):
    """Tells a story as far as it may, from where the beginning that it is given ends."""

    allowed = threading.Semaphore(0)

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        if self.path != "/v1/chat/completions":
            super().do_POST()
            return
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        talk = asked["messages"]
        told = talk[-1]["content"] if talk[-1]["role"] == "assistant" else ""
        assert STORY.startswith(told)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for at, word in enumerate(WORDS):
                if len("".join(WORDS[:at])) >= len(told):
                    self.allowed.acquire()
                    self._event({"content": word})
            self._event({}, "stop")
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            return  # the gateway was killed

    def _event(self, delta: dict[str, str], finish_reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        piece = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "smol", "choices": [choice]}
        self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
        self.wfile.flush()

    @classmethod
    def allow(cls, words: int) -> None:
        cls.allowed.release(words)


@pytest.fixture
def engine() -> Iterator[str]:
    Teller.allowed = threading.Semaphore(0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Teller)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    Teller.allow(1000)
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def store() -> Iterator[str]:
    server = ValkeyServer("valkey")
    server.start()
    yield server.url
    server.remove()


@pytest.fixture
def plane(tmp_path: Path, engine: str, store: str) -> Iterator[ControlPlane]:
    env = FAST | {"MUSTER_VALKEY_URL": store, "MUSTER_ATTACH": f"ollama={engine}"}
    plane = ControlPlane(tmp_path / "plane", "up", env=env)
    plane.start()
    yield plane
    plane.kill()


def asked(plane: ControlPlane, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
    """Ask on a connection that ends with its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", plane.port, timeout=30)
    connection.request(method, path, json.dumps(body) if body else None, headers | {"Connection": "close"})
    return connection.getresponse()


def serves(plane: ControlPlane) -> bool:
    return bool(plane.get("/v1/models")["data"])


def text_of(body: bytes) -> str:
    pieces = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]
    assert all("choices" in piece for piece in pieces), pieces[-1]
    return "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces)


def test_an_answer_survives_the_kill_of_its_gateway(plane: ControlPlane) -> None:
    eventually_sync(lambda: serves(plane), 30)
    Teller.allow(5)
    answer = asked(plane, "POST", "/v1/chat/completions", CHAT, **{"X-Muster-Resumable": "120"})
    assert answer.status == 200
    stream_id = answer.headers["X-Muster-Stream"]
    had = b""
    while had.count(b'"content"') < 5:
        had += answer.read1(65_536)

    plane.kill()
    answer.close()
    Teller.allow(1)  # which the killed one's engine says to nobody
    plane.start()
    Teller.allow(len(WORDS))
    rest = asked(plane, "GET", f"/v1/streams/{stream_id}?offset={len(had)}")

    assert rest.status == 200
    whole = had + rest.read()
    assert text_of(whole) == STORY
    assert whole.endswith(b"data: [DONE]\n\n")
    assert asked(plane, "GET", f"/v1/streams/{stream_id}").read() == whole
