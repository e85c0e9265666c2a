"""The control plane alone. Nothing of an agent is loaded here."""

import asyncio

import structlog

from muster.app.control_plane import ControlPlane
from muster.app.logs import configure_logs, plane_log
from muster.app.process import Progress, log_progress, run
from muster.connectors.catalog import BUILT_IN_NAMES, job_kinds
from muster.connectors.plugins import load_plugins
from muster.logs.own import speak_as
from muster.settings import Settings

log = structlog.get_logger()


def run_server(settings: Settings, progress: Progress | None = None) -> int:
    """Run the control plane until a signal; return the exit code. SetupError says why it cannot start."""
    configure_logs(settings.log_level)

    async def main(stopping: asyncio.Event) -> None:
        speak_as(plane_log(settings))
        plane = make_plane(settings, progress or log_progress)
        await plane.start()
        log.info("control_plane_started", urls=plane.urls)
        await stopping.wait()
        await plane.stop()

    return run(main)


def make_plane(settings: Settings, progress: Progress) -> ControlPlane:
    plugins = load_plugins(BUILT_IN_NAMES)
    return ControlPlane(settings, job_kinds(plugins), progress, plugins.broken)
