"""The three ways to run: the control plane, an agent, or both in one process."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from muster.app.control_plane import ControlPlane, Progress
from muster.app.logs import configure_logs
from muster.app.process import run, url_of
from muster.connectors.catalog import PAYLOAD_CHECKS
from muster.settings import Settings

log = structlog.get_logger()

Ready = Callable[[Sequence[str], str | None], None]


def run_server(settings: Settings, progress: Progress | None = None) -> int:
    """Run the control plane until a signal; return the exit code. SetupError says why it cannot start."""
    configure_logs(settings.log_level)

    async def main(stopping: asyncio.Event) -> None:
        plane = ControlPlane(settings, PAYLOAD_CHECKS, progress or _log_progress)
        await plane.start()
        log.info("control_plane_started", urls=[url_of(address) for address in plane.addresses])
        await stopping.wait()
        await plane.stop()

    return run(main)


def run_up(settings: Settings, progress: Progress | None = None, ready: Ready | None = None) -> int:
    raise NotImplementedError


def run_agent(settings: Settings, progress: Progress | None = None) -> int:
    raise NotImplementedError


def _log_progress(message: str, fraction: float | None) -> None:
    log.info("progress", message=message, fraction=fraction)
