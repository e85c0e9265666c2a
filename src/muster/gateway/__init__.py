from muster.gateway.decisions import RequestView
from muster.gateway.front import Front
from muster.gateway.gateway import Gateway
from muster.gateway.limits import GatewayLimits
from muster.gateway.usage import Finished, GatewayStats, GatewayView

__all__ = [
    "Finished",
    "Front",
    "Gateway",
    "GatewayLimits",
    "GatewayStats",
    "GatewayView",
    "Metric",
    "RequestView",
    "Sample",
]
