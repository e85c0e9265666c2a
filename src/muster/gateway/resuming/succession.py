"""The rest of an answer whose gateway is gone: another worker goes on with what was said."""

from collections.abc import Callable

from muster.clock import Clock
from muster.errors import MusterError, UpstreamFailed
from muster.gateway.continuation import Beginning, Continuation, continuation
from muster.gateway.dialects.call import Call
from muster.gateway.dialects.ending import has_told_its_end
from muster.gateway.exchange import Exchange
from muster.gateway.http.pins import pinned
from muster.gateway.http.request import Request, bearer_token
from muster.gateway.metering.meter import AccountOf, Meter, Watts
from muster.gateway.relay import Relay
from muster.gateway.resuming.recording import Recording
from muster.gateway.resuming.terms import Opening
from muster.gateway.seeking import reserve

_OK = 200
_SETTLING_S = 20.0  # after a start: agents that were away say within it what they have


class Succession:
    def __init__(
        self, relay: Relay, parse: Callable[[str, bytes], Call], account_of: AccountOf, watts: Watts, clock: Clock
    ) -> None:
        self._relay = relay
        self._parse = parse
        self._account_of = account_of
        self._watts = watts
        self._clock = clock
        self._settled_s = clock.monotonic_s() + _SETTLING_S

    def is_ready(self, opening: Opening) -> bool:
        """Tell whether an answer may be taken over: not by a gateway that has not heard of its workers yet."""
        if opening.question is None or self._clock.monotonic_s() >= self._settled_s:
            return True
        call = self._parse(opening.path, opening.question.body)
        headers = opening.question.headers
        try:
            candidate = reserve(self._relay, call, headers, frozenset(), pinned(headers))
        except MusterError:
            return False
        if candidate is not None:
            self._relay.router.release(candidate)
        return True

    def go_on(
        self, recording: Recording, opening: Opening, secrets: dict[bytes, bytes], said: bytes, *, counted: bool
    ) -> None:
        """Have it gone on with, or end it: as it is if nothing is missing, else with an error.

        `counted`: what was said has been charged already.
        """
        if _is_whole(opening, said):
            recording.answered(keep_alive=False)
            return
        try:
            self._ask(recording, opening, secrets, said, counted=counted)
        except MusterError as error:
            recording.break_off(error)

    def _ask(
        self, recording: Recording, opening: Opening, secrets: dict[bytes, bytes], said: bytes, *, counted: bool
    ) -> None:
        refusal = UpstreamFailed(
            "the gateway that this answer came through is gone, and nobody can go on with it: ask again"
        )
        if opening.question is None:
            raise refusal
        headers = opening.question.headers | secrets
        call = self._parse(opening.path, opening.question.body)
        found = continuation(call, headers)
        begun = None if found is None else _beginning(found, said)
        if found is None or begun is None:
            raise refusal
        meter = Meter(self._account_of(bearer_token(headers)), call, self._watts)
        if not counted:
            meter.began(_OK, 1, self._clock.monotonic_s)
            if meter.counted is not None:
                meter.counted.take(said)
        beginning, call.body = begun
        request = Request(
            method=b"POST",
            url=opening.path.encode(),
            headers=headers,
            body=call.body,
            http_1_0=True,
            keep_alive=False,
            correlation_id=opening.correlation_id,
        )
        exchange = Exchange(self._relay, call, request, recording, meter)
        exchange.passage.keeping = recording.keeping
        exchange.follow_on(found, beginning)
        exchange.start()


def _is_whole(opening: Opening, said: bytes) -> bool:
    """Tell whether only its end was not kept any more."""
    if opening.head.length is not None:
        return len(said) >= opening.head.length
    return opening.head.streamed and has_told_its_end(opening.path, said)


def _beginning(found: Continuation, said: bytes) -> tuple[Beginning, bytes] | None:
    """Return what was said and the request for the rest; None where it cannot be gone on with."""
    if not said.endswith(b"\n"):
        return None
    found.note(said)
    beginning = found.begin()
    body = None if beginning is None else found.body(beginning)
    return None if beginning is None or body is None else (beginning, body)
