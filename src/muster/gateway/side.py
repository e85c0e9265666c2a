"""This gateway as one of several: what it tells the others of itself, and what it makes of what they tell."""

from collections import deque
from collections.abc import Callable, Mapping

from muster.clock import Clock
from muster.gateway.admission.admission import Admission
from muster.gateway.routing.route import Router
from muster.gateway.trust.quarantine import Now, Quarantine
from muster.placement.line import First, Turns
from muster.wire.gateways import TrustNews

_TRUST_NEWS_MAX = 1000  # between two tellings


class Side:
    def __init__(self, router: Router, admission: Admission, quarantine: Quarantine, clock: Clock) -> None:
        self._router = router
        self._admission = admission
        self._quarantine = quarantine
        self._clock = clock
        self._trust_news: deque[TrustNews] = deque(maxlen=_TRUST_NEWS_MAX)
        self._tell: Callable[[], None] = lambda: None
        quarantine.on_news(self._note)

    def in_flight(self) -> Mapping[str, int]:
        return self._router.own

    def waiting(self) -> Mapping[str, First]:
        return self._admission.first_of_each()

    def turns(self) -> Mapping[str, Turns]:
        """Return who was let in from the line of each model since this was asked last."""
        return self._admission.turns()

    def on_change(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._router.on_change(tell)

    def hear(self, changes: Mapping[str, int], first: Mapping[str, First]) -> None:
        """Take in by how much the others' requests have become more or less, and who is next in their lines."""
        self._router.taken_elsewhere(changes)
        self._admission.waits_elsewhere(first)
        if any(by < 0 for by in changes.values()):
            self._admission.look()

    def hear_turns(self, turns: Mapping[str, Turns]) -> None:
        for model, had in turns.items():
            self._admission.let_in_elsewhere(model, had)

    def settle(self, rivals: int) -> bool:
        """Be called every few hundredths of a second; return whether that is to go on."""
        unsettled = self._router.settle(rivals)
        self._admission.look()
        return unsettled

    # --- trust -------------------------------------------------------------------------------------------------------

    def _note(self, news: TrustNews) -> None:
        self._trust_news.append(news)
        self._tell()

    def trust_news(self, *, whole: bool) -> tuple[TrustNews, ...]:
        """Return what the others have not been told yet; or, `whole`, all whom we have set aside as well."""
        news = tuple(self._trust_news)
        self._trust_news.clear()
        return (*news, *self._quarantine.put_out_here(self._clock.monotonic_s())) if whole else news

    def hear_trust(self, news: TrustNews, *, from_first: bool) -> None:
        now = Now(self._clock.monotonic_s(), self._clock.now_ms())
        self._quarantine.heard(news, now, from_first=from_first)
