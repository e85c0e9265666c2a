"""Health and version."""

from typing import Any

from litestar import MediaType, Response, get

from muster import __version__
from muster.api.plane import AnyRequest


@get("/health", tags=["basics"], summary="Is the control plane up?")
async def health(request: AnyRequest) -> Response[Any]:
    if "application/json" in request.headers.get("accept", ""):
        return Response({"status": "ok", "version": __version__})
    return Response("ok", media_type=MediaType.TEXT)


@get("/version", tags=["basics"], summary="Which version runs")
async def version() -> dict[str, str]:
    return {"version": __version__, "name": "muster"}
