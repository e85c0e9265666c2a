"""The fleet cut down to the services on one machine, for a gateway that is to serve nothing else."""

from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from muster.placement.candidate import Candidate
from muster.ports import FleetView


class OwnHost:
    """A FleetView. `addresses` are those under which this machine is known, loopback among them."""

    def __init__(self, fleet: FleetView, addresses: Collection[str]) -> None:
        self._fleet = fleet
        self._addresses = frozenset(addresses)
        self._seen: int | None = None
        self._own: tuple[Candidate, ...] = ()

    @property
    def version(self) -> int:
        return self._fleet.version

    def candidates(self) -> Sequence[Candidate]:
        if self._seen != self._fleet.version:
            self._seen = self._fleet.version
            self._own = tuple(
                candidate
                for candidate in self._fleet.candidates()
                if urlsplit(candidate.url).hostname in self._addresses
            )
        return self._own
