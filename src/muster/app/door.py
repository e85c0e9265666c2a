"""The gateway and its door, as the settings have them."""

from collections.abc import Callable, Sequence
from functools import partial

from muster.app.cloud import Cloud
from muster.app.plane_logs import PlaneLogs
from muster.clock import Clock, Rng
from muster.control.access import Access
from muster.control.fleet.own_host import OwnHost
from muster.devices.host import own_addresses
from muster.domain.trace import Tracer
from muster.errors import SetupError
from muster.gateway.front import Front
from muster.gateway.gateway import Gateway
from muster.gateway.limits import GatewayLimits
from muster.gateway.usage import Finished
from muster.placement.scores import Strategy
from muster.ports import FleetView, ModelKeeper
from muster.settings import Settings


def open_gateway(
    settings: Settings,
    fleet: FleetView,
    access: Access,
    cloud: Cloud | None,
    logs: PlaneLogs,
    *,
    clock: Clock,
    rng: Rng,
    tracer: Tracer | None,
    keeper: ModelKeeper,
) -> Gateway:
    served = fleet if settings.fleet_api_url else OwnHost(fleet, own_addresses())
    limits = GatewayLimits(
        body_bytes_max=settings.request_bytes_max,
        connections_max=settings.connections_max,
        connect_timeout_s=settings.connect_timeout_s,
        first_byte_timeout_s=settings.first_byte_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        attempts_max=settings.gateway_attempts_max,
        keep_context=settings.gateway_keep_context,
    )
    return Gateway(
        served,
        clock=clock,
        rng=rng,
        authenticate=access.refusal,
        strategy=Strategy(settings.strategy),
        limits=limits,
        on_finished=partial(_all_hear, (logs.note_answer, *([cloud.answered] if cloud else []))),
        waker=cloud.waker if cloud else None,
        tracer=tracer,
        keeper=keeper,
    )


class Draining:
    """The front as a Lifecycle: its stop lets streams end for a while."""

    def __init__(self, front: Front, drain_s: float) -> None:
        self._front = front
        self._drain_s = drain_s

    async def start(self) -> None:
        try:
            await self._front.start()
        except OSError as error:
            raise SetupError(
                f"{error.strerror or error}",
                next_step="stop what uses that port (`muster doctor` names it), or listen elsewhere: "
                "--listen 127.0.0.1:8091",
            ) from None

    async def stop(self) -> None:
        await self._front.stop(self._drain_s)


def _all_hear(listeners: Sequence[Callable[[Finished], None]], finished: Finished) -> None:
    for listener in listeners:
        listener(finished)
