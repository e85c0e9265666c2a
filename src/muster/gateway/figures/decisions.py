"""Why the last requests went where they did: kept as references while they pass, put into words when somebody asks."""

from collections import deque
from copy import copy
from itertools import islice

from msgspec import Struct

from muster.clock import Clock
from muster.gateway.dialects.call import Call
from muster.gateway.routing.route import Choice
from muster.placement.balance import Seat

RECENT = 20


class Considered(Struct, frozen=True, kw_only=True):
    """A worker that could have served; the least cost is chosen.

    `cost` is about how long an answer takes there, in answers of an idle usual worker. `in_flight` are requests of all
    gateways, `outside` those of others as the engine told.
    """

    worker: str
    cost: float
    in_flight: int
    outside: int
    slots: int | None
    slowness: float
    resident: bool | None


class PassedOver(Struct, frozen=True, kw_only=True):
    worker: str
    reason: str


class Attempt(Struct, frozen=True, kw_only=True):
    """One worker that was asked. `begun_s` and `ended_s` count from the request's beginning.

    `could_serve` and `could_not` are how many workers there were; some of each are listed.
    """

    worker: str
    begun_s: float
    ended_s: float | None
    failure: str | None
    why: str
    could_serve: int
    considered: list[Considered]
    could_not: int
    passed_over: list[PassedOver]


class WaitFor(Struct, frozen=True, kw_only=True):
    """`priority` and `weight` are those that it waited with in a line; null where there was none."""

    what: str
    begun_s: float
    ended_s: float | None
    priority: int | None
    weight: float | None


class Keeping(Struct, kw_only=True):
    """An answer that its caller can come back to, for `keep_s` after it has ended or nobody reads it.

    `kept` is false where that was not possible after all; `taken_over` is one whose gateway was gone.
    """

    stream_id: str
    keep_s: float
    kept: bool = True
    taken_over: bool = False


class RequestView(Struct, frozen=True, kw_only=True):
    """One request to a model; `status` is null while it is answered, `keeping` where its caller cannot come back."""

    correlation_id: str
    at_ms: int
    path: str
    model: str
    strategy: str
    status: int | None
    error: str | None
    duration_s: float | None
    waits: list[WaitFor]
    attempts: list[Attempt]
    keeping: Keeping | None


class RecentRequest(Struct, frozen=True, kw_only=True):
    correlation_id: str
    at_ms: int
    model: str
    worker: str
    status: int | None
    waited_s: float


class _Step(Struct, gc=False):
    what: str  # the worker; or what is waited for, without a choice
    choice: Choice | None
    begun_s: float
    ended_s: float | None = None
    failure: str | None = None
    priority: int | None = None
    weight: float | None = None


class Passage(Struct, gc=False):
    """What happened to one request, told by it."""

    correlation_id: bytes
    path: str  # and no more of the call: it has the whole text
    model: str
    started_s: float
    ended_s: float | None = None
    status: int | None = None
    error: str | None = None
    steps: list[_Step] = []
    keeping: Keeping | None = None

    def waits(self, what: str, now_s: float, priority: int | None = None, weight: float | None = None) -> None:
        self.steps.append(_Step(what, None, now_s, priority=priority, weight=weight))

    def goes_to(self, worker: str, choice: Choice | None, now_s: float) -> None:
        if self.steps:
            self._end_step(now_s)
        self.steps.append(_Step(worker, choice, now_s))

    def failed(self, reason: str, now_s: float) -> None:
        self.steps[-1].failure = reason
        self._end_step(now_s)

    def end(self, status: int, error: str | None, now_s: float) -> None:
        if self.steps:
            self._end_step(now_s)
        self.status, self.error, self.ended_s = status, error, now_s

    def _end_step(self, now_s: float) -> None:
        step = self.steps[-1]
        if step.ended_s is None:
            step.ended_s = now_s

    @property
    def waited_s(self) -> float:
        return sum((step.ended_s or step.begun_s) - step.begun_s for step in self.steps if step.choice is None)

    @property
    def worker(self) -> str:
        return next((step.what for step in reversed(self.steps) if step.choice is not None), "")

    def view(self, strategy: str, at_ms: int) -> RequestView:
        since = self.started_s
        return RequestView(
            correlation_id=self.correlation_id.decode("latin-1"),
            at_ms=at_ms,
            path=self.path,
            model=self.model,
            strategy=strategy,
            status=self.status,
            error=self.error,
            duration_s=_after(self.ended_s, since),
            waits=[
                WaitFor(
                    what=step.what,
                    begun_s=round(step.begun_s - since, 4),
                    ended_s=_after(step.ended_s, since),
                    priority=step.priority,
                    weight=step.weight,
                )
                for step in self.steps
                if step.choice is None
            ],
            attempts=[_attempt(step, step.choice, since) for step in self.steps if step.choice is not None],
            keeping=copy(self.keeping),
        )


def _after(then_s: float | None, since_s: float) -> float | None:
    return None if then_s is None else round(then_s - since_s, 4)


def _attempt(step: _Step, choice: Choice, since_s: float) -> Attempt:
    field = choice.field
    considered = [
        _considered(seat, mine or 0, choice) for seat, mine in zip(field.seats, choice.in_flight, strict=True)
    ]
    considered.sort(key=lambda one: one.cost)
    return Attempt(
        worker=step.what,
        begun_s=round(step.begun_s - since_s, 4),
        ended_s=_after(step.ended_s, since_s),
        failure=step.failure,
        why=_why(choice),
        could_serve=field.could_serve,
        considered=considered,
        could_not=field.could_not,
        passed_over=[PassedOver(worker=entry.key, reason=entry.reason) for entry in field.rejections],
    )


def _considered(seat: Seat, mine: int, choice: Choice) -> Considered:
    model = seat.candidate.model(choice.model)
    return Considered(
        worker=seat.key,
        cost=round(seat.base + mine * seat.step, 3),
        in_flight=mine,
        outside=seat.outside,
        slots=seat.slots or None,
        slowness=round(seat.slowness, 3),
        resident=None if model is None else model.resident,
    )


def _why(choice: Choice) -> str:
    if choice.field.could_serve == 1:
        return "no other worker could serve it"
    if choice.at_home:
        return "it has served this conversation, and is not loaded more than the others"
    return f"{choice.field.rule} of {choice.field.could_serve} workers"


class Decisions:
    """The last so many requests; of two with the same correlation id the later one is found."""

    def __init__(self, kept_max: int, clock: Clock) -> None:
        self._clock = clock
        self._passages: deque[Passage] = deque(maxlen=kept_max)

    def begin(self, call: Call, correlation_id: bytes, now_s: float) -> Passage:
        passage = Passage(correlation_id, call.path, call.model, now_s)
        self._passages.append(passage)
        return passage

    def find(self, correlation_id: str, strategy: str) -> RequestView | None:
        wanted = correlation_id.encode("latin-1", errors="replace")
        found = next((passage for passage in reversed(self._passages) if passage.correlation_id == wanted), None)
        return None if found is None else found.view(strategy, self._at_ms(found))

    def _at_ms(self, passage: Passage) -> int:
        """Return when it began, for people."""
        ago_s = self._clock.monotonic_s() - passage.started_s
        return self._clock.now_ms() - round(ago_s * 1000)

    def recent(self) -> list[RecentRequest]:
        """Return the newest, the newest first."""
        return [
            RecentRequest(
                correlation_id=passage.correlation_id.decode("latin-1"),
                at_ms=self._at_ms(passage),
                model=passage.model,
                worker=passage.worker,
                status=passage.status,
                waited_s=round(passage.waited_s, 3),
            )
            for passage in islice(reversed(self._passages), RECENT)
        ]
