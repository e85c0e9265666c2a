"""One request in the line of its model."""

from collections.abc import Hashable
from typing import Protocol

from muster.errors import MusterError, QueueFull
from muster.gateway.admission.holding import Hold
from muster.gateway.dialects.call import Call
from muster.placement.candidate import Candidate
from muster.placement.line import Ticket


class Applicant(Protocol):
    """A request that wants a slot; `kind` is the same for those whom the same workers can serve."""

    call: Call

    @property
    def kind(self) -> Hashable: ...
    def reserve(self) -> Candidate | None: ...
    def admitted(self, candidate: Candidate) -> None: ...
    def refused(self, error: MusterError) -> None: ...
    def slots(self) -> int: ...


class Desk(Protocol):
    """Where it stands."""

    def leave(self, model: str, ticket: "Ticket[Waiting]") -> None: ...
    def place(self, model: str, ticket: "Ticket[Waiting]") -> int: ...
    def estimate_s(self, waiting: "Waiting") -> float | None: ...
    def retry_after_s(self, model: str, ahead: int) -> float: ...


class Waiting:
    """A Wait, until it is let in or its time is over."""

    ticket: "Ticket[Waiting]"

    def __init__(self, desk: Desk, applicant: Applicant, hold: Hold, model: str, patience_s: float) -> None:
        self._desk = desk
        self._hold = hold
        self._patience_s = patience_s
        self.applicant = applicant
        self.model = model
        self.kind = applicant.kind

    @property
    def place(self) -> int:
        return self._desk.place(self.model, self.ticket)

    def check(self, now_s: float) -> None:
        waited_s = now_s - self.ticket.since_s
        if waited_s > self._patience_s:
            refusal = QueueFull(
                f"no slot of {self.model} became free within {self._patience_s:g} s (setting gateway_wait_s): "
                "try again later",
                field="model",
                retry_after_s=self._desk.retry_after_s(self.model, self.place),
                policy_label="admission",
            )
            self.give_up()
            self.applicant.refused(refusal)
        elif self._hold.is_due(now_s):
            self._hold.say(self._words(), now_s)

    def give_up(self) -> None:
        self._desk.leave(self.model, self.ticket)

    def _words(self) -> str:
        left_s = self._desk.estimate_s(self)
        about = "" if left_s is None else f", about {max(1, round(left_s))} s"
        return f"waiting place {self.place}{about}"
