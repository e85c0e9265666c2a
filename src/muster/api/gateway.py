"""What the gateway of this control plane does and did, for people who look."""

from litestar import get

from muster.api.plane import ThePlane
from muster.gateway import GatewayView


@get("/api/v1/gateway", tags=["models"], summary="What the gateway of this control plane does, and how it fared lately")
async def gateway(plane: ThePlane) -> GatewayView:
    return plane.gateway()
