"""As much of an Ollama server as commands need, as a process of its own: `python model_server.py PORT`."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

INSTALLED = {"smol:latest"}
RESIDENT = {"smol:latest"}


def note(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers: dict[str, Any] = {
            "/api/version": {"version": "0.5.0"},
            "/api/tags": {"models": [{"name": name} for name in sorted(INSTALLED)]},
            "/api/ps": {"models": [{"name": name} for name in sorted(RESIDENT)]},
            "/v1/models": {"object": "list", "data": [{"id": name} for name in sorted(INSTALLED)]},
        }
        self._say(answers.get(self.path), 200 if self.path in answers else 404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = asked["model"] if ":" in asked["model"] else f"{asked['model']}:latest"
        if self.path == "/api/pull" and model.startswith("nothing"):
            self._say({"error": "pull model manifest: file does not exist"}, 500)
        elif self.path == "/api/pull":
            note(f"pulling {model}")
            INSTALLED.add(model)
            half = {"status": "pulling", "total": 100, "completed": 50}
            self._say_lines([{"status": "pulling manifest"}, half, {"status": "success"}])
        elif self.path == "/api/generate" and asked["keep_alive"] == 0:
            RESIDENT.discard(model)
            self._say({"model": model, "done": True, "done_reason": "unload"}, 200)
        else:
            self._say({"error": "no such call"}, 404)

    def _say(self, body: Any, status: int) -> None:
        self._say_lines([body], status)

    def _say_lines(self, lines: list[Any], status: int = 200) -> None:
        self.send_response(status)
        self.end_headers()
        for line in lines:
            self.wfile.write(json.dumps(line).encode() + b"\n")

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


if __name__ == "__main__":
    note("model server is up")
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
