"""This gateway as one of several: what it tells the others of itself, and what it makes of what they tell."""

from collections.abc import Callable, Mapping

from muster.gateway.admission.admission import Admission
from muster.gateway.routing.route import Router


class Side:
    def __init__(self, router: Router, admission: Admission) -> None:
        self._router = router
        self._admission = admission

    def in_flight(self) -> Mapping[str, int]:
        return self._router.own

    def waiting(self) -> Mapping[str, tuple[int, float]]:
        return self._admission.first_of_each()

    def on_change(self, tell: Callable[[], None]) -> None:
        self._router.on_change(tell)

    def hear(self, changes: Mapping[str, int], first: Mapping[str, tuple[int, float]]) -> None:
        """Take in by how much the others' requests have become more or less, and who is next in their lines."""
        self._router.taken_elsewhere(changes)
        self._admission.waits_elsewhere(first)
        if any(by < 0 for by in changes.values()):
            self._admission.look()

    def settle(self, rivals: int) -> bool:
        """Be called every few hundredths of a second; return whether that is to go on."""
        unsettled = self._router.settle(rivals)
        self._admission.look()
        return unsettled
