"""Logs of nodes and control planes: listed, read, followed, cleared; and all that belongs to one job or request."""

import http
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
import structlog
from litestar import delete, get
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream
from msgspec import Struct

from muster.api.plane import AnyRequest, Plane, TheCaller, ThePlane
from muster.api.streams import event_stream
from muster.api.views import rfc3339
from muster.control.logs.desk import CONTROL_PLANE
from muster.control.logs.merge import (
    ALIVE,
    Alive,
    Note,
    Source,
    Told,
    ToldLine,
    parse_source,
    read_all,
    read_one,
    together,
)
from muster.control.logs.timeline import Timeline, Timelines
from muster.domain.event import Event
from muster.errors import InvalidInput, MusterError
from muster.ids import JobId, NodeId
from muster.logs.lines import LEVELS
from muster.logs.reading import TAIL_MAX
from muster.logs.when import parse_time
from muster.sse import KEEP_ALIVE, frame
from muster.wire.logs import LogInfo, LogWish
from muster.wire.pools import LINK as V2_LINK

log = structlog.get_logger()

_NDJSON = "application/x-ndjson"
_TEXT = "text/plain"
_GREP_CHARS_MAX = 1_000

Tail = Annotated[int | None, QueryParameter(ge=0, le=TAIL_MAX, description="Only the last so many lines of each log.")]
Since = Annotated[
    str | None,
    QueryParameter(max_length=64, description="Only lines since then: 90s, 5m, 2h, 1d ago, RFC 3339, or ms."),
]
Until = Annotated[str | None, QueryParameter(max_length=64, description="Only lines up to then, given as `since` is.")]
Grep = Annotated[
    str | None,
    QueryParameter(
        max_length=_GREP_CHARS_MAX, description="Only lines with this text in them; all in lower case: in any case."
    ),
]
Level = Annotated[
    str | None,
    QueryParameter(description="Only lines of at least this level: debug, info, warning, error; none told is info."),
]
Follow = Annotated[bool, QueryParameter(description="Server-sent events, and go on with what comes.")]


class LogView(Struct, frozen=True, kw_only=True):
    """A log with its older parts: `bytes` are those of all."""

    name: str
    bytes: int
    parts: int
    changed_at: str | None


class LogsAnswer(Struct, frozen=True, kw_only=True):
    node_id: str
    logs: list[LogView]


@get("/api/v1/nodes/{node_id:str}/logs", tags=["logs"], summary="The logs that a node has, or `control-plane`")
async def node_logs(plane: ThePlane, node_id: FromPath[str]) -> LogsAnswer:
    infos = await plane.logs.infos(NodeId(node_id))
    return LogsAnswer(node_id=node_id, logs=[_view(info) for info in infos])


@get(
    "/api/v1/nodes/{node_id:str}/logs/{service:str}",
    tags=["logs"],
    summary="One log: its lines as text, as NDJSON by Accept, or followed as server-sent events",
)
async def node_log(
    plane: ThePlane,
    request: AnyRequest,
    node_id: FromPath[str],
    service: FromPath[str],
    tail: Tail = None,
    since: Since = None,
    until: Until = None,
    grep: Grep = None,
    level: Level = None,
    *,
    follow: Follow = False,
) -> Stream:
    wish = _wish(plane, tail, since, until, grep, level, follow=follow)
    return await _answer(request, wish, read_one(plane.logs, Source(NodeId(node_id), (service,)), wish))


@delete(
    "/api/v1/nodes/{node_id:str}/logs/{service:str}",
    tags=["logs"],
    summary="Empty a log, or with `*` in its name those that match",
    status_code=http.HTTPStatus.OK,
)
async def clear_log(plane: ThePlane, caller: TheCaller, node_id: FromPath[str], service: FromPath[str]) -> LogsAnswer:
    infos = await plane.logs.clear(NodeId(node_id), service)
    names = [info.name for info in infos]
    log.info("logs_cleared", node_id=node_id, logs=names, by=caller.name)
    data = {"logs": names, "by": caller.name}
    await plane.events.append([Event(kind="logs_cleared", key=node_id, at_ms=plane.clock.now_ms(), data=data)])
    return LogsAnswer(node_id=node_id, logs=[_view(info) for info in infos])


@get("/api/v1/logs", tags=["logs"], summary="Several logs as one, in the order of time")
async def logs(
    plane: ThePlane,
    request: AnyRequest,
    source: FromQuery[list[str] | None] = None,
    tail: Tail = None,
    since: Since = None,
    until: Until = None,
    grep: Grep = None,
    level: Level = None,
    *,
    follow: Follow = False,
) -> Stream:
    """Read the logs of each `source`, which is NODE or NODE/LOG, `*` in LOG standing for anything; none: of all.

    `control-plane` stands for all control planes.
    """
    wish = _wish(plane, tail, since, until, grep, level, follow=follow)
    sources = together([parse_source(text) for text in source or ()]) or _everything(plane)
    return await _answer(request, wish, read_all(plane.logs, sources, wish))


@get("/api/jobs/{job_id:str}/timeline", tags=["jobs"], summary="What happened with a job, with the lines of all logs")
async def job_timeline(plane: ThePlane, job_id: FromPath[str]) -> Timeline:
    return await _timelines(plane).of_job(JobId(job_id))


@get("/api/v1/timeline", tags=["logs"], summary="What a request led to, by its correlation id")
async def request_timeline(
    plane: ThePlane, correlation_id: Annotated[str, QueryParameter(min_length=1, max_length=128)]
) -> Timeline:
    return await _timelines(plane).of_request(correlation_id)


HANDLERS = [node_logs, node_log, clear_log, logs, job_timeline, request_timeline]


def _wish(
    plane: Plane,
    tail: int | None,
    since: str | None,
    until: str | None,
    grep: str | None,
    level: str | None,
    *,
    follow: bool,
) -> LogWish:
    if level is not None and level not in LEVELS:
        raise InvalidInput(f"level must be one of {', '.join(LEVELS)}, got {level!r}", field="level")
    now_ms = plane.clock.now_ms()
    return LogWish(
        tail=tail,
        since_ms=parse_time(since, now_ms, "since"),
        until_ms=parse_time(until, now_ms, "until"),
        grep=grep,
        level=level,
        follow=follow,
    )


def _everything(plane: Plane) -> list[Source]:
    nodes = [node.node_id for node in plane.fleet.nodes() if node.connected and node.link != V2_LINK]
    return together([Source(CONTROL_PLANE), *(Source(node_id) for node_id in nodes)])


def _timelines(plane: Plane) -> Timelines:
    return Timelines(plane.jobs, plane.events, plane.logs, plane.clock)


async def _answer(request: AnyRequest, wish: LogWish, told: AsyncGenerator[Told, None]) -> Stream:
    """Answer with the first word at hand: what keeps us from reading is an error, not an empty log."""
    first = await anext(told, ALIVE)
    whole = _going_on(first, told)
    if wish.follow:
        return event_stream(_frames(whole))
    as_objects = _NDJSON in request.headers.get("accept", "")
    write = _as_object if as_objects else _as_text
    return Stream(
        (write(one) async for one in whole),
        media_type=_NDJSON if as_objects else _TEXT,
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )


async def _going_on(first: Told, told: AsyncGenerator[Told, None]) -> AsyncIterator[Told]:
    """Yield all; once lines are being sent, what goes wrong can only be told among them."""
    async with aclosing(told):
        yield first
        try:
            async for one in told:
                yield one
        except MusterError as error:
            yield Note(CONTROL_PLANE, error.message)


async def _frames(told: AsyncIterator[Told]) -> AsyncIterator[bytes]:
    async for one in told:
        yield KEEP_ALIVE if isinstance(one, Alive) else frame(_object(one))


def _as_object(one: Told) -> bytes:
    return b"" if isinstance(one, Alive) else msgspec.json.encode(_object(one)) + b"\n"


def _as_text(one: Told) -> bytes:
    match one:
        case ToldLine(line=line):
            return line.text.encode() + b"\n"
        case Note(node_id=node_id, text=text):
            return f"-- {node_id}: {text}\n".encode()
    return b""


def _object(one: ToldLine | Note) -> dict[str, Any]:
    if isinstance(one, Note):
        return {"node_id": one.node_id, "note": one.text}
    line = one.line
    at = None if line.at_ms is None else rfc3339(line.at_ms)
    return {
        "node_id": one.node_id,
        "log": line.log,
        "at": at,
        "seen": line.seen,
        "level": line.level,
        "text": line.text,
    }


def _view(info: LogInfo) -> LogView:
    changed_at = rfc3339(info.changed_at_ms) if info.changed_at_ms else None
    return LogView(name=info.name, bytes=info.bytes, parts=info.parts, changed_at=changed_at)
