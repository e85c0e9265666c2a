from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Struct

from muster.api.lists import ListAfter, labelled, ordered, paged, said
from muster.errors import InvalidInput

_ORDERS: dict[str, Callable[[Any], Any]] = {"size": lambda entry: entry, "name": str}


def test_pages_are_cut_and_say_how_many_there_are() -> None:
    assert paged(range(5), 2, 2) == ([2, 3], {"X-Total-Count": "5"})
    assert paged(range(5), 9, 2) == ([], {"X-Total-Count": "5"})


class Entry(Struct):
    id: str


def test_pages_come_behind_a_named_entry() -> None:
    found = [Entry(letter) for letter in "abcde"]

    def page(after: str | None) -> tuple[list[str], str | None, str | None, bool]:
        page = ListAfter[Entry].of(found, after, 2)
        return [one.id for one in page.data], page.first_id, page.last_id, page.has_more

    assert page(None) == (["a", "b"], "a", "b", True)
    assert page("c") == (["d", "e"], "d", "e", False)
    assert page("e") == ([], None, None, False)
    with pytest.raises(InvalidInput, match="after names nothing"):
        page("x")


def test_labels_are_pairs_with_commas() -> None:
    assert labelled(" zone=a, tier=x=y,") == {"zone": "a", "tier": "x=y"}
    assert labelled(None) == {}
    with pytest.raises(InvalidInput) as refused:
        labelled("zone")
    assert refused.value.field == "labels"


def test_what_is_unknown_comes_last_in_both_directions() -> None:
    assert ordered([2, None, 3, 1], "size", _ORDERS) == [1, 2, 3, None]
    assert ordered([2, None, 3, 1], "-size", _ORDERS) == [3, 2, 1, None]
    assert ordered([2, None, 3], None, _ORDERS) == [2, None, 3]


def test_an_order_that_is_not_offered_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidInput, match="size, name"):
        ordered([1], "weight", _ORDERS)


def test_a_search_takes_any_case_and_any_of_the_names() -> None:
    assert said("GPU", "n1", "gpu-host")
    assert said(None, "n1")
    assert not said("x", "n1", None)
