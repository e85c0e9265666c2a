"""The fleet as placement sees it, and machines rented by the hour."""

from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from muster.domain.machine import Launch, Machine
from muster.ids import NodeId
from muster.placement.candidate import Candidate


class FleetView(Protocol):
    @property
    def version(self) -> int:
        """Grow with every change that a choice could notice."""
        ...

    def candidates(self) -> Sequence[Candidate]: ...


class CloudProvider(Protocol):
    """Raises CloudFailed and its kinds, MachineNotFound, InvalidInput; each call ends within its own deadline."""

    async def create(self, launch: Launch) -> Machine:
        """Make a machine, or return the one that this launch's token has made; Conflict when that one is gone."""
        ...

    async def list(self, fleet: str) -> list[Machine]:
        """Return the fleet's machines; those that are gone as long as the cloud remembers them."""
        ...

    async def start(self, machine_id: str) -> Machine:
        """Do nothing to one that runs; raise Conflict while it is stopping."""
        ...

    async def stop(self, machine_id: str) -> Machine: ...
    async def terminate(self, machine_id: str) -> Machine: ...
    def hourly_usd(self, machine_type: str, *, spot: bool) -> float | None:
        """Return None when the price is not known."""
        ...

    async def close(self) -> None: ...


class Waker(Protocol):
    """The gateway's way to models whose machines are at rest, or that are on disk only."""

    def wake(self, model: str) -> Awaitable[None] | None:
        """Return None when there is nothing to wake for it; else what ends when it is served, or raises ModelAsleep.

        However many ask, it is done once; giving one wait up changes nothing for the others.
        """
        ...

    def models(self) -> Iterable[str]:
        """Return the names of all models that could be woken; some may be served already."""
        ...

    def why(self, model: str) -> str:
        """Return what those wait for who wait for this model: what comes after its name in a sentence."""
        ...


class ModelKeeper(Protocol):
    """The gateway's way to models that nodes fetch and keep themselves, by their address."""

    def holders(self, name: str) -> Sequence[NodeId]: ...
    def pull(self, model: str, node_id: NodeId) -> AsyncIterator[str]:
        """Yield what the node says on the way; raise MusterError when it could not."""
        ...

    def remove(self, model: str, node_id: NodeId) -> AsyncIterator[str]: ...


class RentedMachine(Protocol):
    """A machine in a cloud, as one can be woken and sent to sleep; each call returns what there is to know of it."""

    async def start(self) -> Mapping[str, Any]: ...
    async def stop(self) -> Mapping[str, Any]: ...
    async def set_idle_time(self, ttl_s: float) -> Mapping[str, Any]:
        """Say after how much idleness it is stopped; 0: never."""
        ...
