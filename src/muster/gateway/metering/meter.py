"""The meter of one request: whose it is, and what it comes to."""

import math
from collections.abc import Callable

from muster.access.account import Account
from muster.domain.usage import Use
from muster.gateway.dialects.call import Call
from muster.gateway.metering.counted import Counted, Counts

_FIRST_ERROR = 400
_LEFT = b"x-ratelimit-limit-{0}: %d\r\nx-ratelimit-remaining-{0}: %d\r\nx-ratelimit-reset-{0}: %b\r\n"
_REQUESTS_LEFT, _TOKENS_LEFT = _LEFT.replace(b"{0}", b"requests"), _LEFT.replace(b"{0}", b"tokens")
_S_PER_HOUR = 3600.0

# How many watts the GPUs of a worker draw now; None: unknown.
Watts = Callable[[str], float | None]
AccountOf = Callable[[bytes | None], Account]


class Meter:
    """What the exchange tells: an answer began, and its end; `counted` takes its bytes meanwhile."""

    __slots__ = ("_before", "_call", "_question_bytes", "_sharing", "_watts", "account", "counted")

    def __init__(self, account: Account, call: Call, watts: Watts) -> None:
        self.account = account
        self._call = call
        self._question_bytes = len(call.body)
        self._watts = watts
        self.counted: Counted | None = None  # none until an answer began that is worth something
        self._before = 0  # tokens of answers that were begun elsewhere, and broke off
        self._sharing = 1

    def began(self, status: int, sharing: int, clock_s: Callable[[], float]) -> bytes:
        """Return header lines for the answer that has begun, while so many requests were on its worker."""
        self._sharing = sharing
        if status < _FIRST_ERROR:
            if self.counted is not None:
                self._before += self._read(self.counted).completion_tokens
            self.counted = Counted(stream=self._call.stream)
        allowance = self.account.allowance
        if allowance.requests_per_min is None and allowance.tokens_per_min is None:
            return b""
        return limit_lines(self.account, clock_s())

    def ended(self, worker: str, seconds: float, sharing: int) -> Use | None:
        """Return what it came to; None when no engine answered."""
        if self.counted is None:
            return None
        counts = self._read(self.counted)
        # The mean of how many it began and ended among stands for how many it was among.
        share = 2.0 / (self._sharing + max(1, sharing))
        return Use(
            token=self.account.token_id,
            model=self._call.model,
            worker=worker,
            prompt_tokens=counts.prompt_tokens,
            completion_tokens=counts.completion_tokens + self._before,
            estimated=counts.estimated or bool(self._before),
            worker_ms=round(seconds * 1000),
            energy_mwh=energy_mwh(self._watts(worker), seconds * share),
        )

    def _read(self, counted: Counted) -> Counts:
        return counted.read(
            question_bytes=self._question_bytes,
            stream=self._call.stream,
            embedding=self._call.capability == "embedding",
        )


def energy_mwh(watts: float | None, seconds: float) -> int | None:
    """Return what a worker draws in that time, in thousandths of a watt-hour; None: its power is unknown."""
    return None if watts is None else round(watts * seconds / _S_PER_HOUR * 1000)


def limit_lines(account: Account, now_s: float) -> bytes:
    """Return the header lines by which OpenAI's clients see what is left of their minute."""
    requests, tokens = account.requests_left(now_s), account.tokens_left(now_s)
    lines = b"" if requests is None else _REQUESTS_LEFT % (requests.limit, requests.left, _span(requests.full_in_s))
    return lines if tokens is None else lines + _TOKENS_LEFT % (tokens.limit, tokens.left, _span(tokens.full_in_s))


def _span(seconds: float) -> bytes:
    """Spell a time as OpenAI does: 250ms, 12s, 1m30s."""
    if seconds < 1.0:
        return b"%dms" % math.ceil(seconds * 1000)
    minutes, whole_s = divmod(math.ceil(seconds), 60)
    return b"%dm%ds" % (minutes, whole_s) if minutes else b"%ds" % whole_s
