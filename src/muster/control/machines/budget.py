"""What rented machines may cost, and what they have cost. Pure: prices and times come in."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from muster.domain.machine import PAID, Machine
from muster.errors import OverBudget

_MS_PER_HOUR = 3_600_000


class Price(Protocol):
    """Return US dollars an hour; None when that is not known."""

    def __call__(self, machine_type: str, /, *, spot: bool) -> float | None: ...


class Budget(Struct, frozen=True, kw_only=True):
    machines_max: int
    hourly_usd_max: float
    run_hours_max: float = 0.0  # 0: no bound
    unknown_price_allowed: bool = False


def check(budget: Budget, price: Price, running: Sequence[Machine], machine_type: str, *, spot: bool) -> None:
    """Raise OverBudget, with the figures, when one more such machine may not run."""
    if len(running) >= budget.machines_max:
        raise OverBudget(
            f"{len(running)} machines run and cloud_machines_max is {budget.machines_max}: "
            "stop one (muster cloud stop), or raise it",
            field="cloud_machines_max",
        )
    wanted_usd = price(machine_type, spot=spot)
    if wanted_usd is None and not budget.unknown_price_allowed:
        raise OverBudget(
            f"what a {machine_type} costs an hour is not known: say it with cloud_prices={machine_type}=USD, "
            "or allow it with cloud_unknown_price",
            field="cloud_prices",
        )
    usd = hourly_usd(price, running)
    if usd + (wanted_usd or 0.0) > budget.hourly_usd_max:
        raise OverBudget(
            f"{len(running)} machines cost {usd:.2f} USD an hour, a {machine_type} costs {wanted_usd or 0.0:.2f} more, "
            f"and cloud_hourly_usd_max is {budget.hourly_usd_max:.2f}: stop one, or raise it",
            field="cloud_hourly_usd_max",
        )


def hourly_usd(price: Price, running: Iterable[Machine]) -> float:
    """Sum what machines cost an hour; one without a known price counts as 0."""
    return sum(price(machine.machine_type, spot=machine.spot) or 0.0 for machine in running)


def cost_usd(hourly: float | None, machine: Machine, now_ms: int) -> float | None:
    """Return what its present run has cost so far; 0 while it does not run, None when its price is not known."""
    if machine.state not in PAID:
        return 0.0
    return None if hourly is None else hourly * max(0, now_ms - machine.started_at_ms) / _MS_PER_HOUR


def overrun(budget: Budget, machine: Machine, now_ms: int) -> str | None:
    """Say why a machine has run for too long; None: it has not."""
    hours = (now_ms - machine.started_at_ms) / _MS_PER_HOUR
    if not budget.run_hours_max or hours <= budget.run_hours_max:
        return None
    return f"it has run for {hours:.1f} h and cloud_run_hours_max is {budget.run_hours_max:g}"
