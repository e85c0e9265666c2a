from bench.gateway_page import Figures, Outcome, missing, programs_table, replaced, targets_table
from bench.gateway_peers import PROGRAMS
from bench.gateway_soak import Soaked


def figures(**found: float) -> Figures:
    all_of_it = Figures()
    for factor in (0.5, 1.0, 3.0):  # the middle one counts
        all_of_it.add(**{name: figure * factor for name, figure in found.items()})
    return all_of_it


def outcome_of(found: dict[str, Figures], absent: dict[str, str] | None = None) -> Outcome:
    return Outcome(rounds=3, loads=[1.0], figures=found, absent=absent or {})


def test_targets_are_held_by_medians_over_those_of_the_same_run() -> None:
    outcome = outcome_of(
        {
            "Muster": figures(requests_per_s=30_000, added_p50_ms=0.3, cpu_us_per_event=20),
            "Muster, gateway alone": figures(requests_per_s=45_000, added_p50_ms=0.1),
            "nginx": figures(requests_per_s=60_000, cpu_us_per_event=10),
        }
    )
    assert targets_table(outcome)[2:] == [
        "| requests/s ÷ nginx's | ≥ 0.6 | 0.50 | **no** | 0.75 | yes |",
        "| added p50 | ≤ 0.2 ms | 0.30 ms | **no** | 0.10 ms | yes |",
        "| CPU for an event ÷ nginx's, 100/s | ≤ 1.5 | 2.00 | **no** | - | - |",
    ]


def test_a_row_shows_what_was_not_measured_as_such() -> None:
    row = programs_table(outcome_of({"Portkey": figures(requests_per_s=1470.4, cpu_us_per_request=678.1)}))[2]
    assert row == "| Portkey (Node) | 1,470 | 678.1 | - | - | - | - | - | - | - |"


def test_why_a_figure_is_missing_is_said() -> None:
    broken = Figures()
    broken.fail("fast streams", "nothing was answered")
    said = missing(outcome_of({"Portkey": broken}, {"HAProxy": "is not installed (apt-get install haproxy)"}))
    assert said[:2] == [
        "- Portkey, fast streams: failed in 1 of 3 rounds (nothing was answered).",
        "- HAProxy is not in the table: it is not installed (apt-get install haproxy).",
    ]


def test_one_part_of_the_page_is_replaced_and_the_other_stays() -> None:
    page = "# Title\n<!-- a -->\nold\n<!-- end of a -->\nbetween\n<!-- b -->\nkept\n<!-- end of b -->\n"
    assert replaced(page, "a", [r"new \1"]) == (
        "# Title\n<!-- a -->\n\nnew \\1\n\n<!-- end of a -->\nbetween\n<!-- b -->\nkept\n<!-- end of b -->\n"
    )


def test_every_program_has_a_name_of_its_own_and_a_version_that_is_fixed() -> None:
    assert len({program.key for program in PROGRAMS}) == len(PROGRAMS)
    for program in PROGRAMS:
        assert all("==" in package or "@" in package[1:] for package in program.packages)


def test_a_soak_holds_only_if_nothing_is_left_silent_lost_or_unaccounted() -> None:
    good = Soaked(outcomes={"answered": 90, "left": 10}, recorded=95, left={"tasks": 0, "slots": 0})
    assert good.problems == []
    bad = Soaked(outcomes={"answered": 90, "left": 5, "silent": 2, "lost": 1}, recorded=80, left={"tasks": 3})
    assert bad.problems == ["3 tasks left", "2 silent", "1 lost", "13 unaccounted"]
    assert Soaked(outcomes={"answered": 5}, recorded=7).problems == ["2 unaccounted"]


def test_the_slope_of_memory_is_that_of_the_second_half() -> None:
    grown = [10.0, 30.0, 50.0, 70.0, *(100 + 0.5 * step for step in range(4))]  # a look every 2 s
    assert Soaked(memory_mb=grown).slope_mb_per_hour == 900.0
    assert Soaked(memory_mb=[40.0]).slope_mb_per_hour is None
