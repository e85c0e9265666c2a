"""The ways to run with an agent: that alone, or beside a control plane in one process."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from muster.app.event_log import EventLog
from muster.app.full_stack import FullStack, start_event_log, way_to
from muster.app.logs import agent_log, configure_logs, plane_log
from muster.app.node import UP_MODEL, LocalNode, check_machine
from muster.app.process import Progress, log_progress, make_data_dir, run
from muster.app.stack import Stack
from muster.logs.own import speak_as
from muster.settings import Settings

if TYPE_CHECKING:
    from muster.app.control_plane import ControlPlane

_STOP_MARGIN_S = 30.0  # beyond what running work is given: services, and a last word to the control plane

Ready = Callable[[Sequence[str], str | None], None]


def run_up(settings: Settings, progress: Progress | None = None, ready: Ready | None = None) -> int:
    """Run the control plane and an agent of this machine until a signal; with a profile, its machine beside us."""
    from muster.app.serve import make_plane  # noqa: PLC0415 - an agent alone does without

    configure_logs(settings.log_level, shown="warning" if _is_watched(settings) else None)
    tell = progress or log_progress
    machine_id = check_machine(settings) if settings.profile else ""

    async def main(stopping: asyncio.Event) -> None:
        speak_as(plane_log(settings))
        plane = make_plane(settings, tell)
        await plane.start()
        stack = Stack(settings.stop_timeout_s + _STOP_MARGIN_S)
        try:
            if settings.profile:
                await stack.start(FullStack(settings, plane.urls, machine_id, tell, lambda: _say_ready(ready, plane)))
            else:
                await _run_here(settings, plane, tell, ready, stack, stopping)
            await stopping.wait()
        finally:
            await stack.stop()
            await plane.stop()

    return run(main)


async def _run_here(
    settings: Settings,
    plane: "ControlPlane",
    tell: Progress,
    ready: Ready | None,
    stack: Stack,
    stopping: asyncio.Event,
) -> None:
    """Run the agent in this process, until it is told to leave its fleet, which goes on, or all is to stop."""
    if (path := settings.event_log_path) is not None:
        await start_event_log(EventLog(way_to(settings, plane.urls), path), path, stack)
    node = LocalNode(settings, tell, plane.link, files=plane.files, default_model=UP_MODEL)
    stack.add(node.stop)
    await _until(stopping, node.start())
    if not stopping.is_set():
        _say_ready(ready, plane, next(iter(node.models), None))
    await _until(stopping, node.told_to_stop())
    await node.stop()


def _say_ready(ready: Ready | None, plane: "ControlPlane", model: str | None = None) -> None:
    if ready is not None:
        ready(plane.urls, model)


def run_agent(settings: Settings, progress: Progress | None = None) -> int:
    """Run an agent until a signal, or until it is told to shut down."""
    configure_logs(settings.log_level)

    async def main(stopping: asyncio.Event) -> None:
        make_data_dir(settings.data_path)
        speak_as(agent_log(settings))
        node = LocalNode(settings, progress or log_progress)
        try:
            await _until(stopping, node.start())
            await _until(stopping, node.told_to_stop())
        finally:
            await node.stop()

    return run(main)


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
