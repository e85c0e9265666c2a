"""A model server as small as can be, on a thread: what runs on the machine that a test pretends has booted."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "tiny"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._reply({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self._reply({"error": {"message": "no such path"}}, 404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not asked.get("stream"):
            self._reply({"id": "c", "object": "chat.completion", "choices": [_choice("message", "stop")]})
            return
        chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [_choice("delta", None)]}
        body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()
        self._send(body, 200, "text/event-stream")

    def _reply(self, content: Any, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), status, "application/json")

    def _send(self, body: bytes, status: int, content_type: str) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads along."""


def _choice(part: str, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "finish_reason": finish, part: {"role": "assistant", "content": "Hello there."}}


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # all who waited come at once


class TinyEngine:
    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
