"""How fast each worker gives the tokens of each model, learned from the answers that went through here."""

from collections.abc import Iterable

_NEW_SHARE = 0.2  # of one answer in what is known
_TOKENS_MIN = 8  # fewer say little
_SLOWEST, _FASTEST = 4.0, 0.25  # of what the others take; beyond, a measurement is rather a mishap
_KNOWN_MAX = 20_000


class Speeds:
    def __init__(self) -> None:
        self._per_s: dict[tuple[str, str], float] = {}

    def learn(self, key: str, model: str, tokens: int, took_s: float) -> None:
        """Note an answer: so many tokens came after the first one, in so long."""
        if tokens < _TOKENS_MIN or took_s <= 0:
            return
        per_s = tokens / took_s
        known = self._per_s.get((key, model))
        if known is None and len(self._per_s) >= _KNOWN_MAX:
            self._per_s.pop(next(iter(self._per_s)))  # machines come and go for years
        self._per_s[key, model] = per_s if known is None else known + _NEW_SHARE * (per_s - known)

    def per_s(self, key: str, model: str) -> float | None:
        return self._per_s.get((key, model))

    def slowness(self, keys: Iterable[str], model: str) -> dict[str, float]:
        """Say how much longer than the mean of those that are known each takes; who is unknown is left out."""
        known = {key: speed for key in keys if (speed := self._per_s.get((key, model))) is not None}
        if len(known) <= 1:
            return {}
        mean = sum(known.values()) / len(known)
        return {key: min(_SLOWEST, max(_FASTEST, mean / speed)) for key, speed in known.items()}
