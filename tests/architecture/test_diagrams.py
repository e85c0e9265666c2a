"""The diagrams of docs/architecture.md are those of the tables that the code runs on."""

from enum import StrEnum
from pathlib import Path

import pytest
from docs import diagrams
from docs.diagrams import END, PAGE, TABLES, MarkerMissingError, diagram, main, refreshed


class Light(StrEnum):
    RED = "red"
    GREEN = "green"
    AMBER = "amber"
    FLASHING = "flashing"
    OFF = "off"


class Button(StrEnum):
    NEXT = "next"
    HURRY = "hurry"
    FAIL = "fail"


EMPTY_PAGE = "# Shape\n" + "".join(f"\n<!-- diagram:{name} -->\n{END}\n" for name in TABLES) + "\nThe end.\n"


def test_the_page_shows_the_tables_as_they_are() -> None:
    assert PAGE.read_text(encoding="utf-8") == refreshed(PAGE.read_text(encoding="utf-8")), "run `make docs`"


def test_signals_between_two_states_share_an_arrow_and_life_ends_where_nothing_follows() -> None:
    table = {(Light.RED, Button.NEXT): Light.GREEN, (Light.RED, Button.HURRY): Light.GREEN}

    assert diagram(table).split("\n    ") == [
        "stateDiagram-v2",
        "[*] --> red",
        "red --> green: next, hurry",
        "green --> [*]",
    ]


def test_many_states_that_go_the_same_way_are_drawn_as_one() -> None:
    working = [Light.RED, Light.GREEN, Light.AMBER, Light.FLASHING]
    table = {(state, Button.FAIL): Light.OFF for state in working} | {
        (state, Button.NEXT): Light.RED for state in Light
    }

    assert diagram(table).split("\n    ") == [
        "stateDiagram-v2",
        'state "red, green, amber, flashing" as some_0',
        'state "any state" as some_1',
        "[*] --> red",
        "some_0 --> off: fail",
        "some_1 --> red: next",
    ]


def test_refreshing_twice_changes_nothing_more_and_leaves_the_rest_of_the_page_alone() -> None:
    once = refreshed(EMPTY_PAGE)

    assert refreshed(once) == once
    assert once.count("```mermaid") == len(TABLES)
    assert once.startswith("# Shape\n")
    assert once.endswith("\nThe end.\n")


@pytest.mark.parametrize("spoilt", ["<!-- diagram:nodes -->\n", f"{END}\n"])
def test_a_missing_marker_is_named(spoilt: str) -> None:
    with pytest.raises(MarkerMissingError, match="has no block from `<!-- diagram:"):
        refreshed(EMPTY_PAGE.replace(spoilt, "", 1))


def test_the_tool_checks_writes_and_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "architecture.md"
    monkeypatch.setattr(diagrams, "PAGE", page)
    page.write_text(EMPTY_PAGE, encoding="utf-8")

    assert main([]) == 1
    assert "--write" in capsys.readouterr().err
    assert main(["--write"]) == 0
    assert main([]) == 0
    page.write_text("no markers", encoding="utf-8")
    assert main(["--write"]) == 1
    assert "<!-- diagram:jobs -->" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == "no markers"
