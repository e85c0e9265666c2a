"""Chance that is none."""


class FixedChance:
    """An Rng that always draws the same."""

    def __init__(self, value: float = 0.0) -> None:
        self._value = value

    def random(self) -> float:
        return self._value

    def getrandbits(self, k: int, /) -> int:
        return int(self._value * 2**k)
