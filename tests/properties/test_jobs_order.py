from hypothesis import given
from hypothesis import strategies as st

from muster.jobs.order import PLACE_MAX, PRIORITY_MAX, priority_of, score

places = st.tuples(st.integers(0, PRIORITY_MAX), st.integers(0, PLACE_MAX))


@given(st.lists(places))
def test_scores_order_by_priority_then_first_come_even_as_doubles(line):
    assert sorted(line, key=lambda place: float(score(*place))) == sorted(line, key=lambda place: (-place[0], place[1]))


@given(places, places)
def test_no_two_places_share_a_score(one, other):
    assert (float(score(*one)) == float(score(*other))) == (one == other)


@given(places)
def test_the_priority_can_always_be_read_back(place):
    assert priority_of(float(score(*place))) == place[0]
