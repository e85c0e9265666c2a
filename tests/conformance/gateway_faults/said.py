"""What a caller of either dialect makes of an answer: the text, and how it was told to end."""

import json
from typing import Any

from msgspec import Struct

from tests.integration.gateway.wire import Answer, chat, post

OPENAI_CHAT, OPENAI_COMPLETION = "/v1/chat/completions", "/v1/completions"
OLLAMA_CHAT, OLLAMA_GENERATE = "/api/chat", "/api/generate"


class Said(Struct):
    text: str
    done: bool
    error: str | None


def question(path: str, *headers: str) -> bytes:
    return post(path, chat(stream=True, prompt="Tell."), *headers)


def said(answer: Answer) -> Said:
    """Read a streamed answer as a strict client would; what is neither of a dialect's lines fails."""
    if answer.headers["content-type"] == "application/json":
        return Said("", done=False, error=_message(answer.json["error"]))
    heard = Said("", done=False, error=None)
    for line in answer.body.decode().split("\n"):
        if not line.strip() or line.startswith(":"):
            continue
        assert not heard.done, f"after the end came {line!r}"
        assert heard.error is None, f"after the error came {line!r}"
        if answer.headers["content-type"].startswith("text/event-stream"):
            _hear_event(heard, line)
        else:
            _hear_line(heard, json.loads(line))
    return heard


def _hear_event(heard: Said, line: str) -> None:
    assert line.startswith("data: "), line
    if line == "data: [DONE]":
        heard.done = True
        return
    content = json.loads(line[6:])
    if "error" in content:
        heard.error = _message(content["error"])
    elif content["choices"]:
        choice = content["choices"][0]
        heard.text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""


def _hear_line(heard: Said, content: dict[str, Any]) -> None:
    if "error" in content:
        heard.error = _message(content["error"])
        return
    heard.text += content["message"]["content"] if "message" in content else content["response"]
    heard.done = content["done"]


def _message(error: Any) -> str:
    return str(error["message"] if isinstance(error, dict) else error)
