from muster.cli.top.picture import Picture
from muster.cli.top.screen import Deed, Mode, Screen
from tests.unit.cli.top.fleets import NOW_MS, job_update, machine_update, picture_of

PICTURE = picture_of(*(machine_update(f"n{number:02}") for number in range(30)), job_update("j1"))


def press(screen: Screen, *keys: str, picture: Picture = PICTURE) -> list[Deed]:
    return [deed for key in keys if (deed := screen.press(key, picture)) is not None]


def test_moving_goes_by_rows_pages_and_to_the_ends() -> None:
    screen = Screen()
    places = []
    for keys in (["down"], ["page_down"], ["k"], ["end"], ["down"], ["home"], ["page_up"]):
        press(screen, *keys)
        places.append(screen.nodes.selected)

    assert places == ["n01", "n11", "n10", "n29", "n29", "n00", "n00"]


def test_the_selected_node_stays_selected_wherever_it_goes_and_its_neighbour_when_it_goes_away() -> None:
    screen, picture = Screen(), picture_of(*(machine_update(name) for name in "abc"))
    press(screen, "down", picture=picture)
    picture.take(machine_update("0"), 0.0, NOW_MS)
    screen.nodes.settle(screen.nodes.rows(picture))
    assert screen.nodes.selected == "b"
    for gone, expected in (("b", "c"), ("c", "a"), ("a", "0"), ("0", None)):
        picture.take({"type": "machine_removed", "machine_id": gone}, 0.0, NOW_MS)
        screen.nodes.settle(screen.nodes.rows(picture))
        assert screen.nodes.selected == expected


def test_the_window_always_shows_the_selected_row_and_moves_no_more_than_it_must() -> None:
    screen = Screen()
    listing = screen.nodes
    found = listing.rows(PICTURE)
    listing.settle(found)
    assert listing.window(30, 10) == range(10)
    listing.move(9, found)
    assert listing.window(30, 10) == range(10)
    listing.move(1, found)
    assert listing.window(30, 10) == range(1, 11)
    listing.move(-1, found)
    assert listing.window(30, 10) == range(1, 11)
    listing.move(100, found)
    assert listing.window(30, 10) == range(20, 30)
    assert listing.window(30, 0) == range(29, 30)
    assert listing.window(30, 100) == range(30)


def test_a_deed_is_done_only_when_it_was_confirmed() -> None:
    screen = Screen()
    assert press(screen, "down", "d") == []
    assert (screen.mode, screen.deed) == (Mode.CONFIRM, Deed("drain", "n01"))
    assert press(screen, "n") == []
    assert screen.message == "Left as it is."
    assert press(screen, "d", "y", "r", "Y") == [Deed("drain", "n01"), Deed("resume", "n01")]
    assert press(screen, "tab", "c", "enter") == []
    assert press(screen, "c", "y") == [Deed("cancel", "j1")]


def test_deeds_are_for_the_list_that_is_shown() -> None:
    screen = Screen()
    assert press(screen, "c", "y") == []
    assert "Tab" not in screen.message  # the next key took it away
    press(screen, "c")
    assert "Tab shows the jobs" in screen.message
    press(screen, "tab", "d")
    assert "Tab shows the nodes" in screen.message
    empty = Screen()
    press(empty, "d", picture=picture_of())
    assert empty.mode is Mode.LIST


def test_a_filter_is_written_kept_and_taken_away() -> None:
    screen = Screen()
    press(screen, "/", *"n0q", "backspace", "up", "enter")
    assert (screen.nodes.words, screen.mode, screen.left) == ("n0", Mode.LIST, False)
    assert len(screen.nodes.rows(PICTURE)) == 10
    press(screen, "escape")
    assert screen.nodes.words == ""
    press(screen, "/", "x", "escape")
    assert (screen.nodes.words, screen.mode) == ("", Mode.LIST)


def test_sorting_goes_through_all_columns_and_back() -> None:
    screen = Screen()
    seen = []
    for _ in range(9):
        seen.append(screen.nodes.sort.name)
        press(screen, "s")
    assert seen[0] == seen[8] == "node"
    assert len(set(seen)) == 8
    press(screen, "S")
    assert screen.nodes.turned
    press(screen, "s")
    assert not screen.nodes.turned


def test_help_goes_with_any_key_and_leaving_is_possible_from_everywhere() -> None:
    screen = Screen()
    press(screen, "?", "q")
    assert (screen.mode, screen.left) == (Mode.LIST, False)
    for mode in Mode:
        screen = Screen()
        screen.mode = mode
        press(screen, "ctrl_c")
        assert screen.left
    screen = Screen()
    press(screen, "q")
    assert screen.left
