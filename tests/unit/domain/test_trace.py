import pytest

from muster.domain.trace import traceparent_in

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_traceparent_is_taken_as_it_is() -> None:
    assert traceparent_in(GOOD) == GOOD


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        GOOD.upper(),
        GOOD + "\n",
        GOOD + "-more",
        GOOD[:-1],
        "ff" + GOOD[2:],
        GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        GOOD.replace("00f067aa0ba902b7", "0" * 16),
    ],
)
def test_what_is_none_is_left_out(text: str | None) -> None:
    assert traceparent_in(text) is None
