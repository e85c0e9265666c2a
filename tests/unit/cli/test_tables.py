import time

import pytest

from muster.cli.tables import Column, ago, duration, in_words, show_facts, show_rows, size

NAME = Column("name", lambda row: row["name"])


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "-"), ("", "-"), ([], "-"), (0, "0"), (True, "yes"), (False, "no"), (["a", "b"], "a, b"), (1.5, "1.5")],
)
def test_values_are_shown_in_words(value: object, words: str) -> None:
    assert in_words(value) == words


@pytest.mark.parametrize(
    ("count", "words"), [(None, None), (0, "0 B"), (999, "999 B"), (98_362_432, "98.4 MB"), (3e12, "3.0 TB")]
)
def test_sizes_have_their_unit(count: float | None, words: str | None) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.34, "0.3 s"), (12.3, "12 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (2e5, "2 d")]
)
def test_durations_are_rounded_to_what_matters(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_time_ahead_of_this_clock_is_now() -> None:
    assert ago(int(time.time() * 1000) + 60_000) == "0.0 s ago"
    assert ago(None) is None


def test_names_from_elsewhere_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"name": "[red]x[/red]"}], [NAME], empty="none")
    show_facts([("[bold]", "[/nonsense]")])

    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert "[/nonsense]" in out


def test_an_empty_list_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([], [NAME], empty="No nodes.")

    assert capsys.readouterr().out == "No nodes.\n"


def test_a_pipe_does_not_cut_long_cells(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"name": "x" * 150}], [NAME], empty="none", note="the note")

    out = capsys.readouterr().out
    assert "x" * 150 in out
    assert "the note" in out
