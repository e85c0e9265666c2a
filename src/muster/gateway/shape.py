"""Errors in the caller's dialect."""

import math
from typing import Any

from muster.domain.service import Dialect
from muster.errors import ModelNotFound, MusterError, QuotaExceeded, UpstreamTimeout
from muster.gateway import ollama, openai
from muster.gateway.reply import Reply

_RETRY_AFTER_S = 1  # placement is looked at anew for every request: a slot may be free the next moment
_TRY_LATER = frozenset({429, 503})


def error_reply(dialect: Dialect, problem: MusterError, model: str = "") -> Reply:
    lines = b""
    if problem.http_status in _TRY_LATER:
        wait_s = _RETRY_AFTER_S if problem.retry_after_s is None else problem.retry_after_s
        lines = b"retry-after: %d\r\nx-backoff-ms: %d\r\n" % (max(1, math.ceil(wait_s)), math.ceil(wait_s * 1000))
    content: dict[str, Any]
    if dialect is Dialect.OPENAI:
        if isinstance(problem, (UpstreamTimeout, QuotaExceeded)):
            # Work was done for the one, and twice as much would not help; the other helps itself not before tomorrow.
            lines += b"x-should-retry: false\r\n"
        content = openai.error(problem)
    else:
        if model and isinstance(problem, ModelNotFound):
            problem = ollama.model_not_found(problem, model)
        content = ollama.error(problem)
    return Reply.json(content, status=problem.http_status, lines=lines)


def error_frame(dialect: Dialect, problem: MusterError) -> bytes:
    """Say within a stream that it will not go on."""
    return openai.error_frame(problem) if dialect is Dialect.OPENAI else ollama.error_frame(problem)
