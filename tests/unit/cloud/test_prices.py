import pytest

from muster.cloud.prices import Prices
from muster.errors import SetupError


def test_own_prices_win_over_the_built_in_ones() -> None:
    prices = Prices("g6.xlarge=0.5, my.type=2, g6.xlarge:spot=0.2")

    assert prices.hourly_usd("g6.xlarge", spot=False) == 0.5
    assert prices.hourly_usd("g6.xlarge", spot=True) == 0.2
    assert prices.hourly_usd("my.type", spot=True) == 2.0


def test_spot_counts_at_the_price_on_demand_unless_said_otherwise() -> None:
    assert Prices().hourly_usd("g5.xlarge", spot=True) == Prices().hourly_usd("g5.xlarge", spot=False)


@pytest.mark.parametrize(
    "text", ["g6.xlarge", "g6.xlarge=much", "=1", "g6.xlarge=-1", "g6.xlarge=inf", "g6.xlarge=nan"]
)
def test_what_is_no_price_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SetupError, match="cloud_prices"):
        Prices(text)
