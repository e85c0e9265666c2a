from muster.gateway.figures.decisions import RequestView
from muster.gateway.figures.usage import Finished, GatewayStats, GatewayView
from muster.gateway.front import Front
from muster.gateway.gateway import Gateway
from muster.gateway.limits import GatewayLimits

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
