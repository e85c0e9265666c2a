"""The three ways to run: the control plane, an agent, or both in one process."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from muster.app.control_plane import ControlPlane, Progress
from muster.app.logs import agent_log, configure_logs, plane_log
from muster.app.node import UP_MODEL, LocalNode
from muster.app.process import make_data_dir, run
from muster.connectors.catalog import BUILT_IN_NAMES, job_kinds
from muster.connectors.plugins import load_plugins
from muster.logs.own import speak_as
from muster.settings import Settings

log = structlog.get_logger()

Ready = Callable[[Sequence[str], str | None], None]


def run_server(settings: Settings, progress: Progress | None = None) -> int:
    """Run the control plane until a signal; return the exit code. SetupError says why it cannot start."""
    configure_logs(settings.log_level)

    async def main(stopping: asyncio.Event) -> None:
        speak_as(plane_log(settings))
        plane = _control_plane(settings, progress or _log_progress)
        await plane.start()
        log.info("control_plane_started", urls=plane.urls)
        await stopping.wait()
        await plane.stop()

    return run(main)


def run_up(settings: Settings, progress: Progress | None = None, ready: Ready | None = None) -> int:
    """Run the control plane and an agent of this machine in one process, until a signal."""
    configure_logs(settings.log_level, shown="warning" if _is_watched(settings) else None)
    tell = progress or _log_progress

    async def main(stopping: asyncio.Event) -> None:
        speak_as(plane_log(settings))
        plane = _control_plane(settings, tell)
        await plane.start()
        node = LocalNode(settings, tell, plane.link, files=plane.files, default_model=UP_MODEL)
        try:
            await _until(stopping, node.start())
            if not stopping.is_set() and ready is not None:
                ready(plane.urls, next(iter(node.models), None))
            await _until(stopping, node.told_to_stop())
            await node.stop()  # by a command: this machine leaves its fleet, which goes on
            await stopping.wait()
        finally:
            await node.stop()
            await plane.stop()

    return run(main)


def run_agent(settings: Settings, progress: Progress | None = None) -> int:
    """Run an agent until a signal, or until it is told to shut down."""
    configure_logs(settings.log_level)

    async def main(stopping: asyncio.Event) -> None:
        make_data_dir(settings.data_path)
        speak_as(agent_log(settings))
        node = LocalNode(settings, progress or _log_progress)
        try:
            await _until(stopping, node.start())
            await _until(stopping, node.told_to_stop())
        finally:
            await node.stop()

    return run(main)


def _control_plane(settings: Settings, progress: Progress) -> ControlPlane:
    plugins = load_plugins(BUILT_IN_NAMES)
    return ControlPlane(settings, job_kinds(plugins), progress, plugins.broken)


def _is_watched(settings: Settings) -> bool:
    """Whether a person sees the progress, who need not see every fact as well (`muster events` has them)."""
    return sys.stderr.isatty() and settings.log_level == Settings().log_level


async def _until(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Await `work`, but no longer than until somebody asks to stop."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(stopping.wait())
    await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
    for future in (task, stop):
        if not future.done():
            future.cancel()
    await asyncio.gather(stop, return_exceptions=True)
    if not task.cancelled() and task.done():
        task.result()
    else:
        await asyncio.gather(task, return_exceptions=True)


def _log_progress(message: str, fraction: float | None) -> None:
    log.info("progress", message=message, fraction=fraction)
