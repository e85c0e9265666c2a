"""Server-sent events as answers."""

from collections.abc import AsyncIterator

from litestar.response import Stream

from muster.api.plane import AnyRequest


def event_stream(frames: AsyncIterator[bytes]) -> Stream:
    """Answer with frames as they come; `X-Accel-Buffering` keeps proxies from collecting them."""
    return Stream(
        frames,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def last_event_id(request: AnyRequest) -> str | None:
    """Return where the reader was: the browser sends the header by itself, others may ask by query."""
    return request.headers.get("last-event-id") or request.query_params.get("after") or None
