"""The log of facts, and the monitor's state and live stream."""

from typing import Annotated, Any

from litestar import get
from litestar.params import FromQuery, QueryParameter
from litestar.response import Stream
from msgspec import Struct

from muster.api.plane import AnyRequest, ThePlane
from muster.api.state import MonitorState
from muster.api.streams import event_stream, last_event_id
from muster.events.hub import fact_view
from muster.events.selection import Wish
from muster.gateway.guest import WRITE_NOW


class EventsAnswer(Struct, frozen=True, kw_only=True):
    events: list[dict[str, Any]]
    newest_id: str


class Pagination(Struct, frozen=True, kw_only=True):
    page: int
    limit: int
    total: int


class StateAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    data: MonitorState
    timestamp: int
    pagination: Pagination


@get("/api/events", tags=["events"], summary="A page of the log of facts")
async def events(
    plane: ThePlane, after: FromQuery[str] = "0", limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100
) -> EventsAnswer:
    entries = await plane.events.read(after, limit)
    return EventsAnswer(events=[fact_view(entry) for entry in entries], newest_id=await plane.events.newest_id())


@get("/api/events/stream", tags=["events"], summary="The log of facts, live, as server-sent events")
async def event_facts(plane: ThePlane, request: AnyRequest) -> Stream:
    after = last_event_id(request)
    if after is not None:
        await plane.events.read(after, 1)  # an id that cannot be is a 400, not a broken stream
    return event_stream(plane.hub.facts(after))


@get("/api/monitor/state", tags=["monitor"], summary="The whole state, machines paged")
async def monitor_state(
    plane: ThePlane,
    page: Annotated[int, QueryParameter(ge=1)] = 1,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
    machines: FromQuery[str | None] = None,
    pool: FromQuery[str | None] = None,
) -> StateAnswer:
    wanted = names_in(machines)
    found = [
        node
        for node in plane.fleet.nodes()
        if (not wanted or node.node_id in wanted) and pool in (None, node.facts.pool)
    ]
    return StateAnswer(
        success=True,
        data=await plane.scenery.state(found[(page - 1) * limit : page * limit]),
        timestamp=plane.clock.now_ms(),
        pagination=Pagination(page=page, limit=limit, total=len(found)),
    )


@get("/api/events/monitor", tags=["monitor"], summary="Live state for monitors as server-sent events")
async def monitor_events(
    plane: ThePlane,
    request: AnyRequest,
    *,
    machines: FromQuery[str | None] = None,
    whole_up_to: Annotated[int | None, QueryParameter(ge=0, le=10_000)] = None,
    all_jobs: FromQuery[bool] = False,
) -> Stream:
    """`machines` names those wanted, with the jobs on them; without it everything is told.

    With `whole_up_to` a fleet of at most so many machines is told whole; of a larger one there is a line about each
    machine, and in full only `machines`, with their jobs or `all_jobs`.
    """
    wish = Wish(machines=names_in(machines), whole_up_to=whole_up_to, all_jobs=all_jobs)
    return event_stream(plane.hub.monitor(last_event_id(request), wish, request.scope["state"].get(WRITE_NOW)))


def names_in(text: str | None) -> frozenset[str]:
    return frozenset(name.strip() for name in (text or "").split(",") if name.strip())
