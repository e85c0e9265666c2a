"""Attempts, waits, pauses and signatures."""

import base64
import hashlib
import hmac
import random

import pytest

from muster.domain.webhook import Delivery, DeliveryStatus, HookState
from muster.webhooks.outcome import Answer, Patience, next_state, settle
from muster.webhooks.signature import headers_of
from muster.webhooks.wanted import new_delivery

PATIENCE = Patience(attempts_max=3, base_s=10.0, max_s=60.0, failures_max=2)


def delivery(attempts: int = 0) -> Delivery:
    one = new_delivery("hook", "job_failed", "job-1", "5-0", occurred_at_ms=1, now_ms=2)
    for _ in range(attempts):
        one = after(one, Answer(status=500), Patience(attempts_max=99))
    return one


def after(one: Delivery, answer: Answer, patience: Patience = PATIENCE, now_ms: int = 1000) -> Delivery:
    return settle(one, answer, patience, now_ms, random.Random(3))


@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_2xx_is_delivered(status: int) -> None:
    done = after(delivery(), Answer(status=status, took_ms=12))
    assert (done.status, done.attempts, done.response_status, done.ended_at_ms) == ("delivered", 1, status, 1000)
    assert done.took_ms == 12


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_anything_else_waits_and_is_tried_again(status: int) -> None:
    tried = after(delivery(), Answer(status=status, excerpt="no room"))
    assert tried.status is DeliveryStatus.PENDING
    assert tried.error == f"it answered {status}: no room"
    assert 5_000 <= tried.due_at_ms - 1000 <= 10_000


def test_a_redirect_is_a_failure_that_says_so() -> None:
    assert "redirects are not followed" in (after(delivery(), Answer(status=302)).error or "")


def test_no_answer_is_told_in_its_own_words() -> None:
    assert after(delivery(), Answer(error="nobody there")).error == "nobody there"


def test_waits_double_up_to_a_bound_and_never_lose_their_jitter() -> None:
    rng = random.Random(5)
    waits = [[PATIENCE.delay_s(attempts, rng) for _ in range(200)] for attempts in (1, 2, 3, 4, 60)]
    for whole, found in zip((10, 20, 40, 60, 60), waits, strict=True):
        assert whole / 2 <= min(found) < max(found) <= whole


def test_a_receiver_says_for_how_long_it_is_away_within_reason() -> None:
    assert after(delivery(), Answer(status=503, retry_after_s=30)).due_at_ms == 31_000
    assert after(delivery(), Answer(status=503, retry_after_s=1e9)).due_at_ms == 61_000


def test_after_the_last_attempt_it_has_failed() -> None:
    failed = after(delivery(attempts=2), Answer(status=500))
    assert (failed.status, failed.attempts, failed.ended_at_ms) == (DeliveryStatus.FAILED, 3, 1000)


def test_gone_is_gone() -> None:
    gone = after(delivery(), Answer(status=410))
    assert gone.status is DeliveryStatus.FAILED
    assert next_state(HookState(), gone, PATIENCE, "7-0").paused == "its receiver says that it is gone (410)"


def test_failures_in_a_row_pause_the_webhook_and_say_from_where_on_it_missed_something() -> None:
    failed = after(delivery(attempts=2), Answer(status=500))
    once = next_state(HookState(), failed, PATIENCE, "7-0")
    twice = next_state(once, failed, PATIENCE, "8-0")

    assert (once.failed_in_row, once.paused) == (1, None)
    assert twice.paused == "2 deliveries in a row failed, the last one: it answered 500"
    assert (twice.paused_at_ms, twice.missed_after) == (1000, "8-0")
    assert next_state(twice, failed, PATIENCE, "9-0").missed_after == "8-0"


def test_a_success_between_them_forgives() -> None:
    done = after(delivery(), Answer(status=200))
    assert next_state(HookState(failed_in_row=1), done, PATIENCE, "7-0") == HookState()


def test_an_attempt_that_will_be_repeated_changes_nothing() -> None:
    tried = after(delivery(), Answer(status=500))
    assert next_state(HookState(failed_in_row=1), tried, PATIENCE, "7-0") == HookState(failed_in_row=1)


def test_signatures_are_those_of_standard_webhooks() -> None:
    key = b"0123456789abcdef0123456789abcdef"
    secret = "whsec_" + base64.b64encode(key).decode()
    headers = headers_of(secret, "msg-1", 1_700_000_000_999, b'{"a":1}')

    signed = base64.b64encode(hmac.new(key, b'msg-1.1700000000.{"a":1}', hashlib.sha256).digest()).decode()
    assert headers == {
        "webhook-id": "msg-1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": f"v1,{signed}",
    }
