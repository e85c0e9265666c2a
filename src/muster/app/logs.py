"""Logs: one line an event, for people on a terminal, JSON elsewhere."""

import logging
import sys

import structlog
from structlog.typing import EventDict, WrappedLogger

from muster.access.masking import mask

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logs(level: str) -> None:
    people = sys.stderr.isatty()
    # Rich tracebacks would show what variables hold, cut into lines in which no secret can be recognised.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer = console if people else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.set_exc_info if people else structlog.processors.format_exc_info,
            renderer,
            _masked,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Masking("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _masked(_: WrappedLogger, __: str, line: EventDict | str) -> str:
    """Look at the finished line: a traceback, too, may show what was passed."""
    return mask(str(line))


class _Masking(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))
