"""How far fetches are, written on the services that wait for them."""

from msgspec import Struct

from muster.agent.artifacts.needs import Needs
from muster.agent.board import Entry
from muster.agent.services.template import Instance
from muster.agent.surroundings import Surroundings
from muster.domain.service import Service, ServiceStatus

_TELL_EVERY_S = 1.0


class _Extent(Struct):
    done_bytes: int = 0
    total_bytes: int | None = None
    told_s: float = float("-inf")

    @property
    def in_words(self) -> str:
        fraction = fraction_of(self.done_bytes, self.total_bytes)
        return f"{self.done_bytes // 10**6} MB" if fraction is None else f"{fraction:.0%}"


class WaitingServices:
    def __init__(self, around: Surroundings, needs: Needs) -> None:
        self._around = around
        self._needs = needs
        self._extents: dict[str, _Extent] = {}  # of what is being fetched, by name

    def report(self, name: str, done_bytes: int, total_bytes: int | None) -> None:
        extent = self._extents.setdefault(name, _Extent())
        extent.done_bytes, extent.total_bytes = done_bytes, total_bytes
        now_s = self._around.clock.monotonic_s()
        if now_s - extent.told_s >= _TELL_EVERY_S:
            extent.told_s = now_s
            self._tell(name)

    def ended(self, name: str) -> None:
        if self._extents.pop(name, None) is not None:
            self._tell(name)

    def _tell(self, name: str) -> None:
        known = {service.name: service for service in self._around.board.services()}
        for instance in self._needs.services_with(name):
            service = known.get(instance.name)
            if service is None or service.status is ServiceStatus.STARTING:
                self._around.board.put(Entry(service=self._as_waiting(instance), public_url=None))

    def _as_waiting(self, instance: Instance) -> Service:
        fetched = [
            f"{name}: {self._extents[name].in_words}"
            for name in self._needs.of_services([instance.name])
            if name in self._extents
        ]
        return Service(
            name=instance.name,
            connector=instance.template.connector,
            status=ServiceStatus.STARTING,
            managed=True,
            gpu_index=instance.gpu_index,
            slots=instance.template.slots,
            error=f"fetching {', '.join(fetched)}" if fetched else None,
        )


def fraction_of(done_bytes: int, total_bytes: int | None) -> float | None:
    return min(1.0, done_bytes / total_bytes) if total_bytes else None
