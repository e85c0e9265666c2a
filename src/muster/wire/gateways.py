"""What gateways tell each other."""

from msgspec import Struct


class TrustNews(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worker is set aside by whoever says so, who will also try it; or, without a reason, let back step by step.

    `model` is empty where it is set aside for all; `asked_for` is a model that it failed with.
    """

    worker: str
    model: str = ""
    asked_for: str = ""
    reason: str | None = None
    for_s: float = 0.0


class TurnsNews(Struct, frozen=True, array_like=True):
    """So many requests of one caller were let in from a line."""

    priority: int
    who: str
    count: int


class Taken(Struct, array_like=True):
    """Of the limits of one token: requests of any kind, those to models, and tokens."""

    calls: float = 0
    requests: float = 0
    tokens: float = 0


class GatewayNews(Struct, frozen=True, omit_defaults=True):
    """What a gateway has in flight, by candidate. `whole`: what is not in it is 0; otherwise it is as it was.

    `waiting` has the priority of whoever is next in the line of each model, `waited_ms` for how long it has waited,
    `places` its place and where the clock of the line stands. `turns` are those had in lines since the last telling.
    `jobs` are those that its control plane has given to workers beside engines, all of them, by candidate.

    `taken` has what tokens with limits took since the last telling. Who `asks` has just come, or may have missed some:
    the others answer with what is `missing` now in the limits of each, as far as they know.
    """

    plane_id: str
    in_flight: dict[str, int] = {}
    waiting: dict[str, int] = {}
    waited_ms: dict[str, int] = {}
    jobs: dict[str, int] = {}
    whole: bool = True
    trust: tuple[TrustNews, ...] = ()
    places: dict[str, tuple[float, float]] = {}
    turns: dict[str, tuple[TurnsNews, ...]] = {}
    taken: dict[str, Taken] = {}
    missing: dict[str, Taken] = {}
    asks: bool = False
