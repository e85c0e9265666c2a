"""The web framework's part of the one port: everything but the gateway's own paths."""

from collections.abc import Callable
from pathlib import Path

from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme, Tag
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import ASGIApp

from muster import __version__
from muster.access.book import Caller
from muster.api import (
    agents,
    basics,
    batch_files,
    batches,
    client_socket,
    commands,
    connectors,
    events,
    explain,
    files,
    fleet,
    gateway,
    hives,
    jobs,
    logs,
    metrics,
    models,
    nodes_v2,
    pools,
    proxy,
    queues,
    schedules,
    site,
    sockets,
    system,
    tasks,
    tokens,
    usage,
    webhooks,
)
from muster.api.described import DescribedPlugin
from muster.api.entry import Entry, OwnOnly
from muster.api.heartbeats import Heartbeats
from muster.api.plane import AnyRequest, Plane
from muster.api.problems import on_bad_text, on_http_error, on_muster_error, on_unexpected
from muster.errors import MusterError

_HANDLERS = [
    basics.health,
    basics.version,
    metrics.metrics,
    agents.agent_message,
    fleet.fleet,
    fleet.nodes,
    fleet.node,
    fleet.node_history,
    fleet.node_startup,
    fleet.forget_node,
    fleet.workers,
    fleet.stats,
    *models.HANDLERS,
    *queues.HANDLERS,
    *schedules.HANDLERS,
    jobs.submit,
    jobs.submit_many,
    jobs.jobs,
    jobs.job,
    jobs.cancel,
    jobs.retry,
    jobs.explain,
    jobs.progress,
    events.events,
    events.event_facts,
    events.monitor_state,
    events.monitor_events,
    *commands.HANDLERS,
    *logs.HANDLERS,
    connectors.connectors,
    *files.HANDLERS,
    *tokens.HANDLERS,
    usage.usage,
    *explain.HANDLERS,
    *gateway.HANDLERS,
    system.system,
    *nodes_v2.HANDLERS,
    *hives.HANDLERS,
    *pools.HANDLERS,
    *proxy.HANDLERS,
    *tasks.HANDLERS,
    *webhooks.HANDLERS,
    *batch_files.HANDLERS,
    *batches.HANDLERS,
    sockets.monitor_socket,
    client_socket.client_socket,
    *site.PAGES,
]
_TAGS = {
    "basics": "Health, version, metrics",
    "fleet": "Nodes, workers, models",
    "commands": "What nodes are told to do",
    "jobs": "Queued work",
    "logs": "What services and Muster itself say",
    "files": "What is too large for a payload or a result",
    "events": "What happened",
    "monitor": "The live picture",
    "agents": "What agents send",
    "tokens": "Who may do what, and what was used",
    "batches": "Many requests for when nobody waits, as with OpenAI",
    "webhooks": "Who is told when work ends",
    "older APIs": "Nodes with pools, their catalog, and tasks, under /v2; hives and their telemetry, under /v1",
    "proxy": "What a proxy in front of model servers tells of itself, under /_/",
}


class _Framework(Litestar):
    """Without what Litestar adds for pydantic and attrs where it finds them: 8 MB, and no body is of their kind."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def _caller(request: AnyRequest) -> Caller:
    caller: Caller = request.user
    return caller


def build_app(plane: Plane) -> ASGIApp:
    app = framework(lambda: plane, plane.web_dir, plane.request_bytes_max)
    return Entry(Heartbeats(app, plane), plane.access, plane.http, plane.note)


def framework(current: Callable[[], Plane], web_dir: Path, request_bytes_max: int) -> Litestar:
    """Return the app without the door in front of it; each request is for the plane that is `current` then."""
    return _Framework(
        [*_HANDLERS, site.static_files(web_dir)],
        dependencies={
            "plane": Provide(current, sync_to_thread=False),
            "caller": Provide(_caller, sync_to_thread=False),
        },
        guards=[OwnOnly(current)],
        exception_handlers={
            MusterError: on_muster_error,
            HTTPException: on_http_error,
            UnicodeDecodeError: on_bad_text,
            Exception: on_unexpected,
        },
        request_max_body_size=request_bytes_max,
        openapi_config=OpenAPIConfig(
            title="Muster",
            version=__version__,
            path="/openapi.json",
            render_plugins=[DescribedPlugin(lambda: current().job_kinds, path="/")],
            tags=[Tag(name=name, description=text) for name, text in _TAGS.items()],
            components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"token": []}],
            use_handler_docstrings=True,
        ),
        logging_config=None,
    )
