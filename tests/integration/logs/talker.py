"""A model server that says what it is told to: `python talker.py PORT`.

POST /say writes the body to its output as it is, /flood as many numbered lines as the body asks for.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LINE = b"flood %09d" + b"." * 80 + b"\n"
_LINES_A_WRITE = 1000


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer({"object": "list", "data": [{"id": "talker", "owned_by": "vllm"}]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match self.path:
            case "/say":
                os.write(1, body)
            case "/flood":
                for first in range(0, int(body), _LINES_A_WRITE):
                    os.write(1, b"".join(LINE % number for number in range(first, first + _LINES_A_WRITE)))
            case _:
                os.write(1, f"asked by {self.headers.get('X-Correlation-Id')}\n".encode())
        message = {"role": "assistant", "content": "yes"}
        self._answer(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "talker",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }
        )

    def _answer(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing that we were not told to."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
