"""Who has to wait because all slots are taken, and who is let in when one is given back.

A slot that is given back goes at once to whoever is first in a line that it serves; nobody who comes at that moment can
take it. Only requests of gateways make a line: when ours end we know at once, when those of another gateway do a moment
later. What else the engine does is known too late for that, and its own queue serves it better.
"""

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping

from muster import metrics as m
from muster.access.book import Caller
from muster.access.roles import Role
from muster.clock import Clock
from muster.domain.model import canonical_model_name
from muster.errors import MusterError, QueueFull
from muster.gateway.admission.holding import Hold
from muster.gateway.admission.view import LineView, WaitingCaller
from muster.gateway.admission.waiting import Applicant, Waiting
from muster.gateway.http.pins import INTERACTIVE, PRIORITY_MAX, priority_asked
from muster.gateway.http.request import Request, bearer_token
from muster.gateway.limits import GatewayLimits
from muster.gateway.routing.route import Router
from muster.metrics import Histogram, Metric
from muster.placement.candidate import Candidate
from muster.placement.line import First, Line, Ticket, Turns

Who = Callable[[bytes | None], Caller]

_WAIT_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_MODELS_MAX = 10_000
_NEW_SHARE = 0.2  # of one answer in how long answers take
_RETRY_MIN_S, _RETRY_MAX_S = 1.0, 600.0
_CALLERS_SHOWN = 20
_LEAD_S = 0.4  # of one slot, in whole turns of who is first: none where answers take longer
_GIVES_WAY_S = 0.05  # long enough to hear of a free slot and to say that it is taken


class Admission:
    def __init__(self, router: Router, limits: GatewayLimits, clock: Clock, who: Who) -> None:
        self._limits = limits
        self._clock = clock
        self._who = who
        self._lines: dict[str, Line[Waiting]] = {}  # by model; no line is empty
        self._answer_s: dict[str, float] = {}
        self._elsewhere: Mapping[str, First] = {}
        self._turns: defaultdict[str, Counter[tuple[int, str]]] = defaultdict(Counter)  # by model, until they are told
        self._gave_way_s: dict[str, float] = {}  # since when the line of a model lets that of another gateway go first
        self._waited = Histogram(_WAIT_BUCKETS_S, _MODELS_MAX)
        router.on_freed(self._freed)

    # --- those who come and go ---------------------------------------------------------------------------------------

    def join(self, applicant: Applicant, request: Request, hold: Hold, now_s: float) -> Waiting:
        """Stand a request in line; QueueFull when the line is as long as it may be."""
        call = applicant.call
        model = canonical_model_name(call.model)
        caller = self._who(bearer_token(request.headers))
        priority = priority_of(caller, request.headers)
        line = self._lines.get(model)
        if line is not None and len(line) >= self._limits.waiting_max:
            self._make_room(line, model, priority)
        if line is None:
            line = self._lines[model] = Line()
            if (elsewhere := self._elsewhere.get(model)) is not None:
                line.catch_up(elsewhere)
        waiting = Waiting(self, applicant, hold, model, self._limits.wait_s)
        waiting.ticket = line.join(waiting, caller.name, priority, now_s, caller.weight)
        return waiting

    def _make_room(self, line: Line[Waiting], model: str, priority: int) -> None:
        """Whoever comes matters more than the last in the line, or has to come again."""
        last = line.last
        refusal = QueueFull(
            f"{len(line)} requests wait for a slot of {model} (setting gateway_waiting_max): try again later",
            field="model",
            retry_after_s=self.retry_after_s(model, len(line)),
            policy_label="admission",
        )
        if last.priority >= priority:
            raise refusal
        line.leave(last)
        _tell_later(last.waits.applicant, refusal)

    def leave(self, model: str, ticket: Ticket[Waiting]) -> None:
        line = self._lines.get(model)
        if line is not None:
            line.leave(ticket)
            self._forget_if_empty(model)

    def _forget_if_empty(self, model: str) -> None:
        if not self._lines[model]:
            del self._lines[model]
            self._gave_way_s.pop(model, None)

    # --- those who are let in ----------------------------------------------------------------------------------------

    def _freed(self, candidate: Candidate) -> None:
        if not self._lines:
            return
        served = [model for model in self._lines if candidate.model(model) is not None]
        for model in sorted(served, key=self._urgency):
            self._let_in(model)

    def _urgency(self, model: str) -> tuple[int, float]:
        """Of several models that one engine serves, the line goes first whose first caller matters most."""
        line = self._lines[model]
        first = line.first
        return (-first.priority, first.since_s)

    def look(self) -> None:
        """Let in whom a change of the fleet has made room for."""
        for model in sorted(self._lines, key=self._urgency):
            self._let_in(model)

    def look_at(self, model: str) -> None:
        """Let nobody who comes overtake those who wait."""
        name = canonical_model_name(model)
        if name in self._lines:
            self._let_in(name)

    # --- lines of other gateways --------------------------------------------------------------------------------------

    def turns(self) -> Mapping[str, Turns]:
        """Return who was let in from which line since this was asked last."""
        turns, self._turns = self._turns, defaultdict(Counter)
        return turns

    def let_in_elsewhere(self, model: str, turns: Turns) -> None:
        line = self._lines.get(model)
        if line is not None:
            line.let_in_elsewhere(turns)

    def waits_elsewhere(self, first: Mapping[str, First]) -> None:
        """Know who is next in the lines of other gateways."""
        self._elsewhere = first
        for model in self._lines.keys() & first.keys():
            self._lines[model].catch_up(first[model])

    def _gives_way(self, model: str) -> bool:
        """Tell whether a free slot is left to another gateway, where somebody matters more or has the next turn.

        Only for a moment: who waits there may be waiting for another worker.
        """
        elsewhere = self._elsewhere.get(model)
        if elsewhere is None or not elsewhere.goes_before(self._lines[model].head, self._lead(model)):
            self._gave_way_s.pop(model, None)
            return False
        now_s = self._clock.monotonic_s()
        return now_s - self._gave_way_s.setdefault(model, now_s) < _GIVES_WAY_S

    def _lead(self, model: str) -> float:
        """Return how far a line may be ahead: a slot that is handed over is idle until the other has heard of it."""
        answer_s = self._answer_s.get(model)
        return int(_LEAD_S / answer_s) / self._lines[model].first.weight if answer_s else 0.0

    def _let_in(self, model: str) -> None:
        if self._gives_way(model):
            return
        line = self._lines[model]
        in_vain: set[Hashable] = set()
        for ticket in line:
            if ticket.waits.kind in in_vain:
                continue
            try:
                candidate = ticket.waits.applicant.reserve()
            except MusterError as error:
                line.leave(ticket)
                _tell_later(ticket.waits.applicant, error)
                continue
            if candidate is None:
                in_vain.add(ticket.waits.kind)
                continue
            line.let_in(ticket)
            self._turns[model][ticket.priority, ticket.who] += 1
            self._gave_way_s.pop(model, None)
            self._waited.observe(self._clock.monotonic_s() - ticket.since_s, model)
            ticket.waits.applicant.admitted(candidate)
        self._forget_if_empty(model)

    # --- how long it takes -------------------------------------------------------------------------------------------

    def learn(self, model: str, took_s: float) -> None:
        """Note how long a worker had an answer to give."""
        name = canonical_model_name(model)
        known = self._answer_s.get(name)
        if known is None and len(self._answer_s) >= _MODELS_MAX:
            self._answer_s.clear()
        self._answer_s[name] = took_s if known is None else known + _NEW_SHARE * (took_s - known)

    def place(self, model: str, ticket: Ticket[Waiting]) -> int:
        return self._lines[model].place(ticket)

    def estimate_s(self, waiting: Waiting) -> float | None:
        """Return about how long it is until this one is let in; None when no answer has been seen yet."""
        answer_s = self._answer_s.get(waiting.model)
        if answer_s is None:
            return None
        rounds = math.ceil(waiting.place / waiting.applicant.slots())
        return rounds * answer_s

    def retry_after_s(self, model: str, ahead: int) -> float:
        """Return when a line of so many will have gone on for sure, were there one slot: within reason."""
        return min(_RETRY_MAX_S, max(_RETRY_MIN_S, ahead * self._answer_s.get(model, 0.0)))

    # --- as seen -----------------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        return bool(self._lines)

    def first_of_each(self) -> dict[str, First]:
        """Return who is next in each line, by model."""
        return {model: line.head for model, line in self._lines.items()}

    def view(self, now_s: float) -> list[LineView]:
        return [
            LineView(
                model=model,
                waiting=len(line),
                oldest_s=round(now_s - line.oldest_s, 3),
                answer_s=self._answer_s.get(model),
                callers=_callers(line),
            )
            for model, line in sorted(self._lines.items())
        ]

    def waited(self) -> Metric:
        return self._waited.metric(m.GATEWAY_WAIT)


def priority_of(caller: Caller, headers: dict[bytes, bytes]) -> int:
    """Give what a token has of its own without a word, and let it ask for no more."""
    asked = priority_asked(headers)
    usual = INTERACTIVE if caller.priority is None else caller.priority
    most = PRIORITY_MAX if caller.priority is None and caller.role is Role.ADMIN else usual
    return min(usual if asked is None else asked, most)


def _callers(line: Line[Waiting]) -> list[WaitingCaller]:
    weights = line.weights()
    most = line.by_who().most_common(_CALLERS_SHOWN)
    return [WaitingCaller(name=name, requests=count, weight=weights[name]) for name, count in most]


def _tell_later(applicant: Applicant, error: MusterError) -> None:
    """Not from within somebody else's end: what follows may change the line."""
    asyncio.get_running_loop().call_soon(applicant.refused, error)
