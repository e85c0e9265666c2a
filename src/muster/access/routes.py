"""Which right each request needs. What is not listed needs the highest: a route that was forgotten is closed.

`{}` stands for one segment of the path, a last `*` for all that follow. HEAD is GET, `WS` a WebSocket.
"""

from collections import defaultdict

from muster.access.roles import Right

ROUTES: dict[Right, tuple[str, ...]] = {
    Right.OPEN: (
        "GET /",
        "GET /_/ui",
        "GET /favicon.ico",
        "GET /health",
        "GET /metrics",
        "GET /version",
        "GET /web/*",
    ),
    Right.LOOK_UP: (
        "GET /api/connectors",
        "GET /docs",
        "GET /openapi.json",
        "GET /api/ps",
        "GET /api/tags",
        "GET /api/version",
        "POST /api/show",
        "GET /v1/models",
        "GET /v1/models/{}",
    ),
    Right.CHAT: (
        "POST /api/chat",
        "POST /api/embed",
        "POST /api/embeddings",
        "POST /api/generate",
        "POST /v1/audio/speech",
        "POST /v1/audio/transcriptions",
        "POST /v1/audio/translations",
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "POST /v1/embeddings",
        "POST /v1/images/generations",
        "POST /v1/messages",
        "POST /v1/messages/count_tokens",
        "POST /v1/rerank",
        "POST /v1/responses",
        "POST /v1/score",
    ),
    Right.SUBMIT: (
        "GET /api/webhooks/jobs/secret",
        "POST /api/jobs",
        "POST /api/jobs/batch",
        "POST /v1/batches",
        "POST /v1/files",
        "POST /v2/tasks",
        "PUT /api/files/{}",
    ),
    Right.FOLLOW_JOB: (
        "GET /api/files/{}/{}",
        "GET /api/jobs/{}",
        "GET /api/jobs/{}/explain",
        "GET /api/jobs/{}/progress",
        "GET /v1/batches",
        "GET /v1/batches/{}",
        "GET /v1/files",
        "GET /v1/files/{}",
        "GET /v1/files/{}/content",
        "DELETE /v1/streams/{}",
        "GET /v1/streams/{}",
        "GET /v2/tasks/{}/events",
        "WS /ws/client/{}",
    ),
    Right.CANCEL_JOB: (
        "DELETE /v1/files/{}",
        "POST /api/jobs/{}/cancel",
        "POST /v1/batches/{}/cancel",
        "POST /v2/tasks/{}/cancel",
    ),
    Right.VIEW: (
        "GET /_/fleet",
        "GET /_/status",
        "GET /api/events",
        "GET /api/events/monitor",
        "GET /api/events/stream",
        "GET /api/customers",
        "GET /api/customers/{}",
        "GET /api/jobs",
        "GET /api/jobs/failures",
        "GET /api/jobs/search",
        "GET /api/monitor/state",
        "GET /api/queues",
        "GET /api/schedules",
        "GET /api/schedules/{}",
        "GET /api/v1/commands",
        "GET /api/v1/commands/{}",
        "GET /api/v1/fleet",
        "GET /api/v1/gateway",
        "GET /api/v1/models",
        "GET /api/v1/models/*",
        "GET /api/v1/nodes",
        "GET /api/v1/nodes/{}",
        "GET /api/v1/nodes/{}/history",
        "GET /api/v1/nodes/{}/startup",
        "GET /api/v1/requests/{}",
        "GET /api/v1/stats",
        "GET /api/v1/workers",
        "GET /v1/heartbeats/stream",
        "GET /v2/catalog/availability",
        "GET /v2/nodes",
        "GET /v2/pools/{}/health",
        "GET /v2/pools/{}/{}/health",
        "POST /api/v1/explain",
        "WS /ws/monitor/{}",
    ),
    Right.READ_LOGS: (
        "GET /api/jobs/{}/timeline",
        "GET /api/v1/logs",
        "GET /api/v1/nodes/{}/logs",
        "GET /api/v1/nodes/{}/logs/{}",
        "GET /api/v1/timeline",
    ),
    Right.ACT: (
        "DELETE /api/customers/{}",
        "DELETE /api/delete",
        "DELETE /api/schedules/{}",
        "DELETE /api/v1/nodes/{}",
        "DELETE /api/v1/nodes/{}/logs/{}",
        "DELETE /api/webhooks/{}",
        "GET /api/v1/system",
        "GET /api/webhooks",
        "GET /api/webhooks/{}",
        "GET /api/webhooks/{}/deliveries",
        "POST /_/pause",
        "POST /_/resume",
        "POST /_/start",
        "POST /_/stop",
        "POST /_/ttl",
        "POST /api/blobs/{}",
        "POST /api/copy",
        "POST /api/create",
        "POST /api/jobs/replay",
        "POST /api/jobs/{}/retry",
        "POST /api/pull",
        "POST /api/push",
        "POST /api/queues/{}/pause",
        "POST /api/queues/{}/resume",
        "POST /api/schedules/{}/pause",
        "POST /api/schedules/{}/resume",
        "POST /api/v1/command",
        "POST /api/v1/models/copy",
        "POST /api/v1/models/load",
        "POST /api/v1/models/pin",
        "POST /api/v1/models/pull",
        "POST /api/v1/models/remove",
        "POST /api/v1/models/unload",
        "POST /api/v1/models/unpin",
        "POST /api/webhooks",
        "POST /api/webhooks/{}/deliveries/{}/redeliver",
        "POST /api/webhooks/{}/resume",
        "POST /api/webhooks/{}/test",
        "POST /v2/pools/{}/drain",
        "POST /v2/pools/{}/resume",
        "POST /v2/pools/{}/{}/drain",
        "POST /v2/pools/{}/{}/resume",
        "PUT /api/customers/{}",
        "PUT /api/schedules/{}",
    ),
    Right.SPEAK: (
        "DELETE /v2/nodes/{}",
        "GET /api/agent/files/{}/{}/{}/{}",
        "POST /api/agent/{}",
        "POST /v1/hive-heartbeat",
        "POST /v2/nodes/register",
        "POST /v2/nodes/{}/heartbeat",
        "PUT /api/agent/files/{}/{}/{}",
    ),
    Right.JOIN: ("POST /api/agent/join",),
    Right.MANAGE: (
        "DELETE /api/v1/tokens/{}",
        "GET /api/v1/tokens",
        "GET /api/v1/usage",
        "POST /api/v1/tokens",
        "PUT /api/v1/tokens/{}/allowance",
    ),
}

_ANY = "{}"
_REST = "*"

_Parts = tuple[str, ...]


def _split(path: str) -> _Parts:
    return tuple(part for part in path.split("/") if part)


def _index() -> tuple[dict[tuple[str, _Parts], Right], dict[tuple[str, int], list[tuple[_Parts, Right]]]]:
    """Return the routes without a variable part, and the others by method and length, the most literal first."""
    exact: dict[tuple[str, _Parts], Right] = {}
    variable: defaultdict[tuple[str, int], list[tuple[_Parts, Right]]] = defaultdict(list)
    for right, routes in ROUTES.items():
        for route in routes:
            method, _, path = route.partition(" ")
            parts = _split(path)
            if _ANY in parts:
                variable[method, len(parts)].append((parts, right))
            else:
                exact[method, parts] = right
    for found in variable.values():
        found.sort(key=lambda item: [part == _ANY for part in item[0]])
    return exact, variable


_EXACT, _VARIABLE = _index()


def right_for(method: str, path: str) -> Right:
    parts = _split(path)
    method = "GET" if method == "HEAD" else method
    found = _EXACT.get((method, parts))
    if found is not None:
        return found
    for template, right in _VARIABLE.get((method, len(parts)), ()):
        if all(wanted in (_ANY, part) for wanted, part in zip(template, parts, strict=True)):
            return right
    for length in range(len(parts) - 1, 0, -1):  # the longest beginning that is listed
        if (found := _EXACT.get((method, (*parts[:length], _REST)))) is not None:
            return found
    return Right.MANAGE
