"""Ollama's lines put together again: what it would have sent without a stream, and what it cost."""

from typing import Any

from muster.connectors.openai_request import Kind
from muster.errors import UpstreamFailed

Json = dict[str, Any]


class OllamaAnswer:
    """Takes the lines of one chat or text in order."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._last: Json = {}
        self._thinking = ""
        self._calls: list[Any] = []
        self.text = ""
        self.pieces = 0

    @property
    def finished(self) -> bool:
        return self._last.get("done") is True

    def add(self, line: Json) -> bool:
        """Take a line and tell whether it brought output, or the end."""
        part = line.get("message") if self._kind is Kind.CHAT else line
        if not isinstance(part, dict):
            raise UpstreamFailed("Ollama sent a line without its message")
        text = part.get("content" if self._kind is Kind.CHAT else "response") or ""
        thinking, calls = part.get("thinking") or "", part.get("tool_calls") or []
        self.text += text
        self._thinking += thinking
        self._calls += calls
        self._last = line
        brought = bool(text or thinking or calls)
        self.pieces += brought
        return brought or self.finished

    def result(self) -> Json:
        whole = {key: value for key, value in self._last.items() if key not in {"message", "response"}}
        said: Json = {"thinking": self._thinking} if self._thinking else {}
        if self._kind is Kind.CHAT:
            calls: Json = {"tool_calls": self._calls} if self._calls else {}
            whole["message"] = {"role": "assistant", "content": self.text} | said | calls
        else:
            whole |= {"response": self.text} | said
        return with_usage(whole)


def with_usage(answer: Json) -> Json:
    """Add what it cost under the names that all connectors use."""
    prompt, completion = answer.get("prompt_eval_count"), answer.get("eval_count")
    if prompt is None and completion is None:
        return answer
    usage = {"prompt_tokens": prompt or 0, "completion_tokens": completion or 0}
    return answer | {"usage": usage | {"total_tokens": sum(usage.values())}}
