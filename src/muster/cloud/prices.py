"""What machines cost an hour: Linux, on demand, in US dollars, as listed for us-east-1 in 2026.

Spot prices move: a machine on spot is counted at its price on demand, which is the most it can cost, unless the person
says what it costs. A type that is not listed has no price, and is not rented unless the person says so.
"""

from collections.abc import Mapping

from muster.errors import SetupError

HOURLY_USD: Mapping[str, float] = {
    "g4dn.xlarge": 0.526,
    "g4dn.2xlarge": 0.752,
    "g4dn.12xlarge": 3.912,
    "g5.xlarge": 1.006,
    "g5.2xlarge": 1.212,
    "g5.4xlarge": 1.624,
    "g5.12xlarge": 5.672,
    "g5.48xlarge": 16.288,
    "g6.xlarge": 0.8048,
    "g6.2xlarge": 0.9776,
    "g6.4xlarge": 1.3232,
    "g6.12xlarge": 4.6016,
    "g6.48xlarge": 13.3504,
    "g6e.xlarge": 1.861,
    "g6e.2xlarge": 2.2421,
    "g6e.12xlarge": 10.4926,
    "p4d.24xlarge": 32.7726,
    "p5.48xlarge": 98.32,
    "t3.micro": 0.0104,
    "t3.medium": 0.0416,
    "t3.xlarge": 0.1664,
}
_SPOT = ":spot"


class Prices:
    def __init__(self, own: str = "") -> None:
        """`own` is `type=USD` or `type:spot=USD`, several with commas."""
        self._known = dict(HOURLY_USD)
        for part in filter(None, (piece.strip() for piece in own.split(","))):
            machine_type, _, text = part.partition("=")
            try:
                usd = float(text)
            except ValueError:
                usd = -1.0
            if not machine_type or not 0 <= usd < float("inf"):
                raise SetupError(
                    f"cloud_prices must be type=USD pairs with commas, got {part!r}",
                    next_step="for example MUSTER_CLOUD_PRICES=g6.xlarge=0.80,g6.xlarge:spot=0.35",
                )
            self._known[machine_type.strip()] = usd

    def hourly_usd(self, machine_type: str, *, spot: bool) -> float | None:
        on_demand = self._known.get(machine_type)
        return self._known.get(machine_type + _SPOT, on_demand) if spot else on_demand
