"""Errors in the caller's dialect."""

import math
from typing import Any

import msgspec
from msgspec import Struct

from muster.domain.service import Dialect
from muster.errors import ModelNotFound, MusterError, QuotaExceeded, UpstreamTimeout
from muster.gateway.dialects import anthropic, ollama, openai
from muster.gateway.dialects.chat_answer import error_text
from muster.gateway.http.reply import Reply

_RETRY_AFTER_S = 1  # placement is looked at anew for every request: a slot may be free the next moment
_TRY_LATER = frozenset({429, 503})


class _Typed(Struct):
    type: str = ""


_typed = msgspec.json.Decoder(_Typed)


def error_reply(dialect: Dialect, problem: MusterError, model: str = "") -> Reply:
    lines = b""
    if problem.http_status in _TRY_LATER:
        wait_s = _RETRY_AFTER_S if problem.retry_after_s is None else problem.retry_after_s
        lines = b"retry-after: %d\r\nx-backoff-ms: %d\r\n" % (max(1, math.ceil(wait_s)), math.ceil(wait_s * 1000))
    content: dict[str, Any]
    if dialect is Dialect.OLLAMA:
        if model and isinstance(problem, ModelNotFound):
            problem = ollama.model_not_found(problem, model)
        content = ollama.error(problem)
    else:
        # Work was done for the one, and twice as much would not help; the other helps itself not before tomorrow.
        retry = problem.retriable and not isinstance(problem, (UpstreamTimeout, QuotaExceeded))
        lines += b"x-should-retry: %b\r\n" % (b"true" if retry else b"false")
        if dialect is Dialect.OPENAI:
            content = openai.error(problem)
        else:
            content = anthropic.error(problem.http_status, problem.message)
    return Reply.json(content, status=problem.http_status, lines=lines)


def engine_error_reply(dialect: Dialect, status: int, body: bytes) -> Reply:
    """Tell an engine's error to a caller of another dialect, or one who was translated; the status stays."""
    if dialect is Dialect.OLLAMA:
        return Reply.json({"error": error_text(body)}, status=status)
    if dialect is Dialect.OPENAI or _is_anthropic(body):
        return Reply(body=body, status=status)
    return Reply.json(anthropic.error(status, error_text(body)), status=status)


def _is_anthropic(body: bytes) -> bool:
    try:
        return _typed.decode(body).type == "error"
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def error_frame(dialect: Dialect, problem: MusterError) -> bytes:
    """Say within a stream that it will not go on."""
    if dialect is Dialect.OLLAMA:
        return ollama.error_frame(problem)
    return openai.error_frame(problem) if dialect is Dialect.OPENAI else anthropic.error_frame(problem)
