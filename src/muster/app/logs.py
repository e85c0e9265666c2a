"""Logs: one line an event, for people on a terminal, JSON elsewhere, and in a file for each part of Muster."""

import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

import structlog
from structlog.typing import EventDict, WrappedLogger

from muster.access.masking import mask
from muster.logs.own import OwnLog, keep, spoken_about
from muster.settings import Settings

LOGS = "logs"
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def plane_log(settings: Settings) -> OwnLog:
    """Return where the control plane keeps what it says."""
    return OwnLog(plane_logs(settings) / "server.log")


def agent_log(settings: Settings) -> OwnLog:
    return OwnLog(settings.data_path / LOGS / "agent.log")


def plane_logs(settings: Settings) -> Path:
    """Return the folder of the control plane's logs; above it are those of the node."""
    return settings.data_path / LOGS / "control-plane"


def configure_logs(level: str, *, shown: str | None = None) -> None:
    """`shown` is from which level on lines go to the terminal too; without it all do that are kept."""
    people = sys.stderr.isatty()
    # Rich tracebacks would show what variables hold, cut into lines in which no secret can be recognised.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer = console if people else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            _about,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.set_exc_info,
            _kept,
            _Shown(_LEVELS[shown or level]),
            *([] if people else [structlog.processors.format_exc_info]),
            renderer,
            _masked,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Masking("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler, _Keeping()])


def _about(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    return {**spoken_about(), **line}


def _kept(logger: WrappedLogger, name: str, line: EventDict) -> EventDict:
    keep(dict(structlog.processors.format_exc_info(logger, name, dict(line))))
    return line


class _Shown:
    def __init__(self, level: int) -> None:
        self._level = level

    def __call__(self, _: WrappedLogger, __: str, line: EventDict) -> EventDict:
        if _LEVELS.get(line["level"], logging.ERROR) < self._level:
            raise structlog.DropEvent
        return line


def _masked(_: WrappedLogger, __: str, line: EventDict | str) -> str:
    """Look at the finished line: a traceback, too, may show what was passed."""
    return mask(str(line))


class _Masking(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


class _Keeping(logging.Handler):
    """Lines of libraries, kept as our own are."""

    def emit(self, record: logging.LogRecord) -> None:
        at = datetime.fromtimestamp(record.created, UTC).isoformat()
        event = logging.Formatter("%(message)s").format(record)
        said = {"timestamp": at, "level": record.levelname.lower(), "event": event, "logger": record.name}
        keep({**spoken_about(), **said})
