"""Whose an answer is, what it came to, and what its caller is told of his limits."""

from muster.access.account import Account
from muster.access.allowance import Allowance
from muster.domain.service import Dialect
from muster.domain.usage import Use
from muster.gateway.dialects.call import Call
from muster.gateway.metering.meter import Meter, limit_lines

WHOLE = b'{"usage":{"prompt_tokens":7,"completion_tokens":5}}'


def meter(*, stream: bool = False, watts: float | None = None, body: bytes = b"x" * 40) -> Meter:
    call = Call(dialect=Dialect.OPENAI, path="/v1/chat/completions", model="m", stream=stream, body=body)
    return Meter(Account("t"), call, lambda _: watts)


def take(one: Meter, data: bytes) -> None:
    if one.counted is not None:
        one.counted.take(data)


def test_an_answer_is_charged_with_its_worker_s_time() -> None:
    one = meter()
    assert one.began(200, 1, lambda: 0.0) == b""
    take(one, WHOLE)

    assert one.ended("n/llama", 1.5, 1) == Use(
        token="t", model="m", worker="n/llama", prompt_tokens=7, completion_tokens=5, worker_ms=1500
    )


def test_what_no_engine_answered_or_answered_with_an_error_costs_nothing() -> None:
    assert meter().ended("", 0.0, 1) is None
    one = meter()
    one.began(400, 1, lambda: 0.0)
    take(one, b'{"error":"no"}')
    assert one.ended("n/llama", 1.0, 1) is None


def test_energy_is_shared_among_the_requests_on_the_worker() -> None:
    one = meter(watts=360.0)
    one.began(200, 1, lambda: 0.0)
    take(one, WHOLE)
    ended = one.ended("n/llama", 10.0, 3)

    assert ended is not None
    assert ended.energy_mwh == 500  # 360 W for 10 s are 1 Wh, and it was one of two


def test_an_answer_that_went_on_elsewhere_is_estimated_as_both() -> None:
    one = meter(stream=True)
    one.began(200, 1, lambda: 0.0)
    take(one, b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n' * 3)
    one.began(200, 1, lambda: 0.0)
    take(one, b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":4}}\n\n')
    ended = one.ended("n/llama", 1.0, 1)

    assert ended is not None
    assert (ended.prompt_tokens, ended.completion_tokens, ended.estimated) == (10, 7, True)


def test_limits_are_told_as_openai_tells_them() -> None:
    account = Account("t")
    assert limit_lines(account, 0.0) == b""
    account.change(Allowance(requests_per_min=600, tokens_per_min=60))
    account.admit(0, 0.0)
    account.take(Use(token="t", model="m", prompt_tokens=0, completion_tokens=12), 0, 0.0)
    assert limit_lines(account, 0.0) == (
        b"x-ratelimit-limit-requests: 600\r\nx-ratelimit-remaining-requests: 599\r\n"
        b"x-ratelimit-reset-requests: 100ms\r\n"
        b"x-ratelimit-limit-tokens: 60\r\nx-ratelimit-remaining-tokens: 48\r\nx-ratelimit-reset-tokens: 12s\r\n"
    )
    account.take(Use(token="t", model="m", prompt_tokens=0, completion_tokens=78), 0, 0.0)
    assert limit_lines(account, 0.0).endswith(b"remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 1m30s\r\n")
