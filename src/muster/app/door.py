"""The gateway and its door, as the settings have them."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from functools import partial

from muster.app.cloud import Cloud
from muster.app.plane_logs import PlaneLogs
from muster.app.wakers import Wakers
from muster.clock import Clock, Rng
from muster.control.access import Access
from muster.control.fleet.fleet import Fleet
from muster.control.fleet.own_host import OwnHost
from muster.control.fleet.power import watts_of
from muster.control.metering import Metering
from muster.control.models.loader import ModelLoader
from muster.control.recorder import Recorder
from muster.devices.host import own_addresses
from muster.domain.node import Node
from muster.domain.trace import Tracer
from muster.errors import SetupError
from muster.gateway.figures.usage import Finished, models_used
from muster.gateway.front import Front
from muster.gateway.gateway import Gateway
from muster.gateway.guest import AsgiApp
from muster.gateway.limits import GatewayLimits
from muster.gateway.metering.meter import Watts
from muster.ids import NodeId
from muster.placement.scores import Strategy
from muster.ports import ImageMaker, Lifecycle, ModelKeeper, StreamStore
from muster.settings import Settings

Heard = Callable[[Sequence[Finished]], None]

_WATTS_MAX = 4096  # workers whose power is remembered


def open_gateway(
    settings: Settings,
    fleet: Fleet,
    access: Access,
    cloud: Cloud | None,
    models: ModelLoader,
    logs: PlaneLogs,
    metering: Metering,
    *heard: Heard,
    recorder: Recorder,
    clock: Clock,
    rng: Rng,
    tracer: Tracer | None,
    keeper: ModelKeeper,
    streams: StreamStore,
    images: ImageMaker,
) -> Gateway:
    served = fleet if settings.fleet_api_url else OwnHost(fleet, own_addresses())
    limits = GatewayLimits(
        body_bytes_max=settings.request_bytes_max,
        connections_max=settings.connections_max,
        connect_timeout_s=settings.connect_timeout_s,
        first_byte_timeout_s=settings.first_byte_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        attempts_max=settings.gateway_attempts_max,
        waiting_max=settings.gateway_waiting_max,
        wait_s=settings.gateway_wait_s,
        keep_context=settings.gateway_keep_context,
        patience_factor=settings.patience_factor,
        first_byte_floor_s=settings.first_byte_floor_s,
        idle_floor_s=settings.idle_floor_s,
        quarantine_max_s=settings.quarantine_max_s,
        resume_max_s=settings.gateway_resume_max_s,
        stream_bytes_max=settings.gateway_stream_bytes_max,
        streams_bytes_max=settings.gateway_streams_bytes_max,
    )
    listeners: list[Heard] = [
        logs.note_answers,
        partial(_charge, metering),
        partial(_used, models),
        *heard,
    ]
    if cloud is not None:
        listeners.append(cloud.answered)
    return Gateway(
        served,
        clock=clock,
        rng=rng,
        authenticate=access.refusal,
        who=access.who,
        strategy=Strategy(settings.strategy),
        limits=limits,
        on_finished=partial(_all_hear, listeners),
        on_conduct=lambda change: recorder.emit([change.event(clock.now_ms())]),
        waker=Wakers([models, *([cloud.waker] if cloud else [])]),
        tracer=tracer,
        keeper=keeper,
        account_of=access.account,
        watts=watts_in(fleet, settings.worker_watts),
        streams=streams,
        images=images,
    )


def open_front(settings: Settings, gateway: Gateway, app: AsgiApp, tls: ssl.SSLContext | None) -> Front:
    """Return the door of the first process; with others beside it they bring their guests to a port of loopback."""
    shared = settings.gateway_workers > 1
    private = ("127.0.0.1", 0) if shared else None
    return Front(gateway, app, settings.listen_addresses, tls=tls, shared=shared, private=private)


class Draining:
    """The front as a Lifecycle: its stop lets streams end for a while. What is `beside` it stops at the same time."""

    def __init__(self, front: Front, drain_s: float, beside: Lifecycle | None = None) -> None:
        self._front = front
        self._drain_s = drain_s
        self._beside = beside

    async def start(self) -> None:
        try:
            await self._front.start()
        except OSError as error:
            raise SetupError(
                f"{error.strerror or error}",
                next_step="stop what uses that port (`muster doctor` names it), or listen elsewhere: "
                "--listen 127.0.0.1:8091",
            ) from None
        if self._beside is not None:
            await self._beside.start()

    async def stop(self) -> None:
        stops = [self._front.stop(self._drain_s), *([self._beside.stop()] if self._beside is not None else [])]
        await asyncio.gather(*stops)


def _used(models: ModelLoader, finished: Sequence[Finished]) -> None:
    models.uses.answered(models_used(finished))


def _all_hear(listeners: Sequence[Heard], finished: Sequence[Finished]) -> None:
    for listener in listeners:
        listener(finished)


def _charge(metering: Metering, finished: Sequence[Finished]) -> None:
    metering.take(*[one.use for one in finished if one.use is not None])


def watts_in(fleet: Fleet, otherwise: float) -> Watts:
    """Return how to find what the GPUs of a worker draw, by its key, `node/service`."""
    said: dict[str, tuple[Node, float | None]] = {}  # of whom each figure is: it holds until that node says more

    def watts(worker: str) -> float | None:
        node_id, _, service = worker.partition("/")
        node = fleet.book.get(NodeId(node_id))
        if node is None:
            return otherwise or None
        known = said.get(worker)
        if known is None or known[0] is not node:
            drawn = watts_of(node, service)
            known = node, drawn if drawn is not None else otherwise or None
            if len(said) >= _WATTS_MAX:
                said.clear()
            said[worker] = known
        return known[1]

    return watts
