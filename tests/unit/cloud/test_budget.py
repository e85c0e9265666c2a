import pytest

from muster.cloud.prices import Prices
from muster.control.machines.budget import Budget, check, cost_usd, overrun
from muster.domain.machine import Machine, MachineState
from muster.errors import OverBudget

PRICE = Prices("cheap=1,dear=4").hourly_usd
BUDGET = Budget(machines_max=3, hourly_usd_max=5.0, run_hours_max=2.0)
HOUR_MS = 3_600_000


def machine(machine_type: str = "cheap", state: MachineState = MachineState.RUNNING) -> Machine:
    return Machine(machine_id="i-1", state=state, machine_type=machine_type, started_at_ms=0)


def test_what_fits_passes() -> None:
    check(BUDGET, PRICE, [machine(), machine()], "cheap", spot=False)


def test_the_figures_are_told_when_it_would_cost_too_much() -> None:
    with pytest.raises(OverBudget, match=r"2 machines cost 2\.00 USD an hour, a dear costs 4\.00 more.* is 5\.00"):
        check(BUDGET, PRICE, [machine(), machine()], "dear", spot=False)


def test_there_may_be_too_many() -> None:
    with pytest.raises(OverBudget, match="3 machines run and cloud_machines_max is 3"):
        check(BUDGET, PRICE, [machine()] * 3, "cheap", spot=False)


def test_an_unknown_price_is_refused_unless_it_is_allowed() -> None:
    with pytest.raises(OverBudget, match="cloud_prices=odd=USD"):
        check(BUDGET, PRICE, [], "odd", spot=False)
    check(Budget(machines_max=1, hourly_usd_max=0.0, unknown_price_allowed=True), PRICE, [], "odd", spot=False)


def test_cost_so_far_is_that_of_this_run() -> None:
    assert cost_usd(4.0, machine("dear"), HOUR_MS // 2) == 2.0
    assert cost_usd(4.0, machine("dear", MachineState.STOPPED), HOUR_MS) == 0.0
    assert cost_usd(None, machine("odd"), HOUR_MS) is None


def test_a_run_may_be_too_long() -> None:
    assert overrun(BUDGET, machine(), 2 * HOUR_MS) is None
    assert overrun(BUDGET, machine(), 3 * HOUR_MS) == "it has run for 3.0 h and cloud_run_hours_max is 2"
    assert overrun(Budget(machines_max=1, hourly_usd_max=1.0), machine(), 10**12) is None
