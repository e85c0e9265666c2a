"""Chance that repeats: every concern draws from its own stream, so that one more draw here changes nothing there."""

from random import Random


def stream(seed: int, concern: str) -> Random:
    return Random(f"{seed}/{concern}")  # noqa: S311 it must repeat, which no safe source of chance does


def spread_ms(rng: Random, between_s: tuple[float, float]) -> int:
    return round(1000 * rng.uniform(*between_s))
