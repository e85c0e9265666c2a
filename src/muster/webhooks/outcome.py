"""What becomes of a delivery after an attempt, and of its webhook."""

from msgspec import Struct
from msgspec.structs import replace

from muster.clock import Rng
from muster.domain.webhook import Delivery, DeliveryStatus, HookState

_GONE = 410
_OK = range(200, 300)
_ELSEWHERE = range(300, 400)


class Patience(Struct, frozen=True, kw_only=True):
    """The wait doubles from `base_s` to `max_s`, with jitter; a webhook is paused after `failures_max` in a row."""

    attempts_max: int = 10
    base_s: float = 5.0
    max_s: float = 3600.0
    failures_max: int = 3

    def delay_s(self, attempts: int, rng: Rng) -> float:
        """Return between a half and the whole of what the number of attempts gives."""
        whole = min(self.max_s, self.base_s * 2.0 ** min(attempts - 1, 32))
        return whole * (0.5 + 0.5 * rng.random())


class Answer(Struct, frozen=True, kw_only=True):
    """What came back: `status` 0 and an error where nothing did."""

    status: int = 0
    error: str = ""
    excerpt: str = ""
    retry_after_s: float | None = None
    took_ms: int = 0


def settle(delivery: Delivery, answer: Answer, patience: Patience, now_ms: int, rng: Rng) -> Delivery:
    tried = replace(
        delivery, attempts=delivery.attempts + 1, response_status=answer.status or None, took_ms=answer.took_ms
    )
    if answer.status in _OK:
        return replace(tried, status=DeliveryStatus.DELIVERED, ended_at_ms=now_ms, error=None)
    problem = problem_of(answer)
    if answer.status == _GONE or tried.attempts >= patience.attempts_max:
        return replace(tried, status=DeliveryStatus.FAILED, ended_at_ms=now_ms, error=problem)
    delay_s = patience.delay_s(tried.attempts, rng)
    if answer.retry_after_s is not None:
        delay_s = max(delay_s, min(answer.retry_after_s, patience.max_s))
    return replace(tried, due_at_ms=now_ms + round(delay_s * 1000), error=problem)


def next_state(state: HookState, settled: Delivery, patience: Patience, position: str) -> HookState:
    """Return the webhook's state after an attempt; `position` is how far the log has been told."""
    match settled.status:
        case DeliveryStatus.DELIVERED:
            return replace(state, failed_in_row=0)
        case DeliveryStatus.PENDING:
            return state
    failed = replace(state, failed_in_row=state.failed_in_row + 1)
    if settled.response_status == _GONE:
        return pause(failed, "its receiver says that it is gone (410)", settled.ended_at_ms or 0, position)
    if failed.failed_in_row < patience.failures_max:
        return failed
    why = f"{failed.failed_in_row} deliveries in a row failed, the last one: {settled.error}"
    return pause(failed, why, settled.ended_at_ms or 0, position)


def pause(state: HookState, why: str, now_ms: int, position: str) -> HookState:
    if state.paused:
        return state
    return replace(state, paused=why, paused_at_ms=now_ms, missed_after=position)


def problem_of(answer: Answer) -> str:
    if not answer.status:
        return answer.error or "no answer"
    if answer.status in _ELSEWHERE:
        return f"it answered {answer.status}: redirects are not followed"
    return f"it answered {answer.status}" + (f": {answer.excerpt}" if answer.excerpt else "")
