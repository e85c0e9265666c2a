from typing import Any

import pytest

from muster.agent.gpus.watch import PATIENCE, GpuWatch, Trouble
from muster.domain.gpu import Gpu, GpuFault


def card(**figures: Any) -> Gpu:
    return Gpu(index=0, **figures)


def seen(*readings: tuple[float, Gpu | None]) -> list[str | None]:
    watch = GpuWatch()
    return [watch.see(gpu, at_s) for at_s, gpu in readings]


def test_every_trouble_has_its_patience() -> None:
    assert set(PATIENCE) == set(Trouble)


@pytest.mark.parametrize(
    ("reading", "why"),
    [
        (None, "it is not seen any more"),
        (card(fault=GpuFault.LOST), "it fell off the bus"),
        (card(fault=GpuFault.NEEDS_RESET), "it needs a reset"),
    ],
)
def test_what_is_gone_is_out_at_once_and_back_after_it_was_well_for_a_while(reading: Gpu | None, why: str) -> None:
    assert seen((0, card()), (1, reading), (2, card()), (30.9, card()), (31, card())) == [None, why, why, why, None]


def test_one_slow_answer_is_none_yet_and_a_driver_that_stays_silent_is_out() -> None:
    silent = card(fault=GpuFault.SILENT)
    why = "its driver does not answer"
    assert seen((0, silent), (4, card()), (8, silent), (12, silent), (13, silent)) == [None, None, None, None, why]
    assert seen((0, silent), (5, silent), (6, card()), (10, silent), (39, card()), (40, card())) == [
        None, why, why, why, why, None,
    ]  # fmt: skip


def test_a_lost_gpu_that_flickers_stays_out() -> None:
    watch = GpuWatch()
    for at_s in range(0, 100, 20):
        assert watch.see(card(fault=GpuFault.LOST), at_s) is not None
        assert watch.see(card(), at_s + 10) is not None


def test_memory_errors_count_from_the_first_reading_on() -> None:
    readings = [(0, 7), (10, 7), (20, 9), (30, 9), (619, 9), (620, 9)]
    why = "it had 2 memory error(s) that could not be corrected"
    assert seen(*((at_s, card(ecc_uncorrected=errors)) for at_s, errors in readings)) == [
        None, None, why, why, why, None,
    ]  # fmt: skip


def test_further_memory_errors_make_it_longer_and_a_count_that_falls_is_no_error() -> None:
    readings = [(0, 0), (10, 1), (500, 2), (700, 2), (1099, 2), (1100, 2), (1110, 0), (1120, 0), (1130, 1)]
    out = [why is not None for why in seen(*((at_s, card(ecc_uncorrected=errors)) for at_s, errors in readings))]
    assert out == [False, True, True, True, True, False, False, False, True]


def test_memory_errors_that_are_not_told_for_a_while_are_not_forgotten() -> None:
    readings = [(0, 1), (10, None), (20, 1), (30, 2)]
    out = [why is not None for why in seen(*((at_s, card(ecc_uncorrected=errors)) for at_s, errors in readings))]
    assert out == [False, False, False, True]


def test_an_error_of_the_hardware_takes_it_out_and_one_from_an_earlier_listener_does_not_count_twice() -> None:
    readings = [(0, 0), (10, 1), (20, 1), (610, 1), (620, 0), (630, 1)]
    whys = seen(*((at_s, card(xid=79, xids=count)) for at_s, count in readings))
    why = "its hardware reported an error (XID 79)"
    assert whys == [None, why, why, None, None, why]


@pytest.mark.parametrize("reason", ["thermal", "hardware_thermal"])
def test_heat_takes_it_out_when_it_lasts_and_keeps_its_words(reason: str) -> None:
    def hot(at_c: float | None) -> Gpu:
        return card(throttled=("power_cap", reason), temperature_c=at_c)

    cool = card(throttled=("power_cap",), temperature_c=60)
    why = "it is too hot: its clocks are held down at 93 °C"
    assert seen((0, hot(92)), (20, hot(93)), (25, hot(94)), (84, cool), (85, cool)) == [None, why, why, why, None]
    assert seen((0, hot(92)), (10, cool), (20, hot(None)), (39, hot(None))) == [None] * 4
    assert seen((0, hot(None)), (20, hot(None)))[-1] == "it is too hot: its clocks are held down"


def test_all_that_is_wrong_is_told() -> None:
    whys = seen((0, card(ecc_uncorrected=0)), (1, card(ecc_uncorrected=1, xid=48, xids=1)))
    assert whys[1] == ("it had 1 memory error(s) that could not be corrected; its hardware reported an error (XID 48)")
