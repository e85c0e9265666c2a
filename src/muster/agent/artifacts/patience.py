"""When a download is tried again. Pure: time and chance come in."""

from datetime import UTC
from email.utils import parsedate_to_datetime

from msgspec import Struct

from muster.agent.backoff import Backoff
from muster.clock import Rng

# 403 among them: hosts of release files say so to who asks too often.
TRY_AGAIN = frozenset({403, 408, 425, 429, 500, 502, 503, 504})
_JITTER = 0.1


class Patience(Struct, frozen=True, kw_only=True):
    """`attempts_max` in a row without a byte of progress; whoever asks for more than `told_s_max` is not waited for."""

    attempts_max: int = 6
    backoff: Backoff = Backoff(base_s=1.0, max_s=30.0)
    told_s_max: float = 300.0

    def delay_s(self, failures: int, told_s: float | None, rng: Rng) -> float | None:
        """Return the wait after the `failures`-th failure in a row, None to give up.

        `told_s` is what the server asked for: never less than that, and a little more, so that not all come at once.
        """
        if failures >= self.attempts_max or (told_s or 0.0) > self.told_s_max:
            return None
        own_s = self.backoff.delay_s(failures, rng)
        return own_s if told_s is None else max(own_s, told_s * (1 + _JITTER * rng.random()))


def parse_retry_after(text: str | None, now_ms: int) -> float | None:
    """Read seconds or a date (RFC 9110, 10.2.3); None where nothing was said that makes sense."""
    if not text:
        return None
    if text.isascii() and text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, when.replace(tzinfo=when.tzinfo or UTC).timestamp() - now_ms / 1000)
