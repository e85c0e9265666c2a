"""Rented machines put together: which cloud, under which rules. Without a cloud set up nothing of one is imported."""

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from muster import metrics as m
from muster.clock import Clock
from muster.cloud.prices import Prices
from muster.control.fleet.fleet import Fleet
from muster.control.machines.budget import Budget
from muster.control.machines.service import CloudRules, CloudService
from muster.control.machines.waker import FleetWaker
from muster.control.recorder import Recorder
from muster.errors import SetupError
from muster.gateway.figures.usage import Finished
from muster.metrics import Metric
from muster.ports import Bus, CloudProvider, Leases
from muster.settings import Settings


class Cloud:
    """A Lifecycle: what the gateway and the API get of the cloud."""

    def __init__(self, service: CloudService, waker: FleetWaker) -> None:
        self.service = service
        self.waker = waker

    async def start(self) -> None:
        await self.service.start()

    async def stop(self) -> None:
        await self.waker.stop()
        await self.service.stop()

    def metrics(self) -> Iterator[Metric]:
        machines = self.service.machines
        states = Counter(machine.state.value for machine in machines.all())
        yield m.CLOUD_MACHINES.of({(state,): count for state, count in sorted(states.items())})
        yield m.CLOUD_HOURLY.single(self.service.hourly_usd())

    def answered(self, finished: Sequence[Finished]) -> None:
        for worker in {one.worker for one in finished if one.worker}:
            self.service.worker_answered(worker)


def open_provider(settings: Settings) -> CloudProvider:
    """SetupError says what is missing."""
    if not settings.cloud_provider:
        raise SetupError("no cloud is set up", next_step="set MUSTER_CLOUD_PROVIDER=ec2; see docs/guides/ec2.md")
    if importlib.util.find_spec("boto3") is None:
        raise SetupError("renting machines on EC2 needs boto3", next_step="pip install 'muster[cloud]'")
    from muster.cloud.ec2 import Ec2  # noqa: PLC0415 - boto3 takes half a second: only who rents machines waits for it

    return Ec2(
        region=settings.cloud_region, endpoint_url=settings.cloud_endpoint_url, prices=Prices(settings.cloud_prices)
    )


def budget_of(settings: Settings) -> Budget:
    return Budget(
        machines_max=settings.cloud_machines_max,
        hourly_usd_max=settings.cloud_hourly_usd_max,
        run_hours_max=settings.cloud_run_hours_max,
        unknown_price_allowed=settings.cloud_unknown_price,
    )


def open_cloud(
    settings: Settings,
    fleet: Fleet,
    leases: Leases,
    bus: Bus,
    recorder: Recorder,
    clock: Clock,
    *,
    plane_id: str,
    busy_workers: Callable[[], Iterable[str]],
    is_leader: Callable[[], bool],
) -> Cloud | None:
    """Return None when no cloud is set up."""
    if not settings.cloud_provider:
        return None
    rules = CloudRules(
        fleet=settings.cloud_fleet,
        budget=budget_of(settings),
        refresh_s=settings.cloud_refresh_s,
        idle_stop_s=settings.cloud_idle_stop_s,
        boot_s=settings.cloud_wake_timeout_s,
    )
    service = CloudService(
        open_provider(settings),
        fleet,
        leases,
        bus,
        recorder,
        clock,
        rules,
        plane_id=plane_id,
        busy_workers=busy_workers,
        is_leader=is_leader,
    )
    return Cloud(service, FleetWaker(service, fleet, clock, timeout_s=settings.cloud_wake_timeout_s))
