"""What a request asks of routing: a worker with a free slot, of those that its caller's dialect can be served by."""

import contextlib
from collections.abc import Callable, Hashable

from muster.domain.service import Dialect
from muster.errors import MusterError
from muster.gateway.dialects import anthropic, ollama, openai
from muster.gateway.dialects.call import Call
from muster.gateway.http.pins import said_of_the_worker
from muster.gateway.relay import Relay
from muster.gateway.routing.conversation import conversation
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
    avoided = relay.conduct.avoided(call.model)
    in_conversation = lambda: conversation(call, headers)  # noqa: E731 - asked for only where there is a choice
    if avoided and relay.router.is_held_beside(call.model, tried | avoided):
        with contextlib.suppress(MusterError):
            return _reserve_but(relay, call, tried | avoided, pins, in_conversation, full_too=bool(tried))
    return _reserve_but(relay, call, tried, pins, in_conversation, full_too=bool(tried))


def _reserve_but(
    relay: Relay,
    call: Call,
    excluded: frozenset[str],
    pins: Wish | None,
    in_conversation: Callable[[], int | None],
    *,
    full_too: bool,
) -> Candidate | None:
    """Whoever has tried somebody already has been let in once, and does not wait for a slot again."""
    spoken_by = SPOKEN_BY[call.dialect]
    return relay.router.reserve(
        call.model, call.capability, spoken_by, excluded, pins, in_conversation, full_too=full_too
    )


def kind_of(call: Call, headers: Headers) -> Hashable:
    """Return what is the same for requests that the same workers can serve."""
    return (call.capability, call.dialect, *said_of_the_worker(headers))


def slots_for(relay: Relay, call: Call) -> int:
    return relay.router.slots(call.model, call.capability, SPOKEN_BY[call.dialect])
