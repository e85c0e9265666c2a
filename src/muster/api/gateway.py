"""What the gateway of this control plane does and did, and why a request went where it did, for people who look."""

from litestar import get
from litestar.params import FromPath

from muster.api.plane import ThePlane
from muster.errors import NotFound
from muster.gateway import GatewayView, RequestView


@get("/api/v1/gateway", tags=["models"], summary="What the gateway of this control plane does, and how it fared lately")
async def gateway(plane: ThePlane) -> GatewayView:
    return plane.gateway()


@get("/api/v1/requests/{request_id:str}", tags=["models"], summary="Where a request to a model went, and why")
async def request(plane: ThePlane, request_id: FromPath[str]) -> RequestView:
    found = await plane.request(request_id)
    if found is None:
        raise NotFound(
            f"no request {request_id!r} is remembered here: only the newest are, each by the control plane that took "
            "it; its id is in the answer's X-Correlation-Id",
            field="request_id",
        )
    return found


HANDLERS = [gateway, request]
