"""What a request asks of routing: a worker with a free slot, of those that its caller's dialect can be served by.

Where nobody can serve it now it waits: in the line of its model, or for a machine.
"""

import contextlib
from collections.abc import Hashable
from functools import partial
from typing import Protocol

from muster.domain.service import Dialect
from muster.errors import MusterError
from muster.gateway.admission.holding import Hold, Wait
from muster.gateway.admission.waking import still_asleep
from muster.gateway.dialects import anthropic, ollama, openai
from muster.gateway.dialects.call import Call
from muster.gateway.figures.decisions import Passage
from muster.gateway.http.delivery import Delivery
from muster.gateway.http.pins import said_of_the_worker
from muster.gateway.http.request import Request
from muster.gateway.relay import Relay
from muster.gateway.routing.conversation import HEADERS, WORTH_BYTES, conversation
from muster.gateway.routing.route import Conversation
from muster.placement.candidate import Candidate
from muster.placement.wish import Wish

# Who can serve a caller of each dialect.
SPOKEN_BY = {
    Dialect.OPENAI: openai.SPOKEN_BY,
    Dialect.OLLAMA: ollama.SPOKEN_BY,
    Dialect.ANTHROPIC: anthropic.SPOKEN_BY,
}

Headers = dict[bytes, bytes]


def reserve(relay: Relay, call: Call, headers: Headers, tried: frozenset[str], pins: Wish | None) -> Candidate | None:
    """Avoid who is quarantined, but rather ask even those than nobody. None: all who could serve are full."""
    in_conversation = None  # mostly, and else found out only where there is a choice
    if len(call.body) >= WORTH_BYTES or not HEADERS.isdisjoint(headers):
        in_conversation = partial(conversation, call, headers)
    if relay.conduct.quarantine.cases:
        avoided = relay.conduct.avoided(call.model)
        if avoided and relay.router.is_held_beside(call.model, tried | avoided):
            with contextlib.suppress(MusterError):
                return _reserve_but(relay, call, tried | avoided, pins, in_conversation, full_too=bool(tried))
    return _reserve_but(relay, call, tried, pins, in_conversation, full_too=bool(tried))


def _reserve_but(
    relay: Relay,
    call: Call,
    excluded: frozenset[str],
    pins: Wish | None,
    in_conversation: Conversation | None,
    *,
    full_too: bool,
) -> Candidate | None:
    """Whoever has tried somebody already has been let in once, and does not wait for a slot again."""
    spoken_by = SPOKEN_BY[call.dialect]
    return relay.router.reserve(
        call.model, call.capability, spoken_by, excluded, pins, in_conversation, full_too=full_too
    )


class Seeker(Protocol):
    """The request that looks for a worker."""

    relay: Relay
    call: Call
    request: Request
    delivery: Delivery
    passage: Passage
    pins: Wish | None

    def reserve(self) -> Candidate | None: ...
    def found(self, candidate: Candidate) -> None: ...
    def fail(self, error: MusterError) -> None: ...


class Seeking:
    """The wait of one request that nobody can serve now. It is the Applicant of its line."""

    def __init__(self, seeker: Seeker) -> None:
        self.call = seeker.call
        self._seeker = seeker
        self._relay = seeker.relay
        self._wait: Wait | None = None

    def check(self, now_s: float) -> None:
        if self._wait is not None:
            self._wait.check(now_s)

    def give_up(self) -> None:
        wait, self._wait = self._wait, None
        if wait is not None:
            wait.give_up()

    def _hold(self, now_s: float) -> Hold:
        seeker, every_s = self._seeker, self._relay.limits.wake_keepalive_s
        return Hold(self.call, seeker.delivery, seeker.request.correlation_id, now_s, every_s)

    # --- for a machine -----------------------------------------------------------------------------------------------

    def wait_for_a_machine(self, error: MusterError) -> None:
        """Wait for a machine that is started for this model; `error` stands if there is none.

        It stands for who asked for certain workers, too: no other machine would do.
        """
        now_s = self._relay.clock.monotonic_s()
        try:
            if self._seeker.pins is None:
                self._wait = self._relay.wakings.begin(self.call, self._hold(now_s), self._woken)
        except MusterError as refusal:
            error = refusal
        if self._wait is None:
            self._seeker.fail(error)
        else:
            self._seeker.passage.waits("a machine for the model", now_s)

    def _woken(self, problem: MusterError | None) -> None:
        self._wait = None
        try:
            if problem is not None:
                raise problem
            candidate = self.reserve()
        except MusterError as error:
            self._seeker.fail(still_asleep(error))
            return
        if candidate is None:
            self.wait_for_a_slot()
        else:
            self._seeker.found(candidate)

    # --- for a slot, as Applicant ------------------------------------------------------------------------------------

    def wait_for_a_slot(self) -> None:
        now_s = self._relay.clock.monotonic_s()
        try:
            self._wait = self._relay.admission.join(self, self._seeker.request, self._hold(now_s), now_s)
        except MusterError as error:
            self._seeker.fail(error)
        else:
            self._seeker.passage.waits("a free slot", now_s)

    @property
    def kind(self) -> Hashable:
        """Return what is the same for requests that the same workers can serve."""
        return (self.call.capability, self.call.dialect, *said_of_the_worker(self._seeker.request.headers))

    def slots(self) -> int:
        return self._relay.router.slots(self.call.model, self.call.capability, SPOKEN_BY[self.call.dialect])

    def reserve(self) -> Candidate | None:
        return self._seeker.reserve()

    def admitted(self, candidate: Candidate) -> None:
        self._wait = None
        self._seeker.found(candidate)

    def refused(self, error: MusterError) -> None:
        self._wait = None
        self._seeker.fail(error)
