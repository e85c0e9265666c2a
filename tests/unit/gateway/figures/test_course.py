import pytest

from muster.gateway.figures.course import EVERY_S, Course, Totals, quantile

BOUNDS_S = (0.1, 1.0, 10.0)


def totals(requests: int, errors: int = 0, first_byte: tuple[int, ...] = ()) -> Totals:
    return Totals(requests=requests, errors=errors, in_flight=2, first_byte=first_byte)


def test_each_point_tells_of_the_time_since_the_one_before():
    course = Course(BOUNDS_S)
    assert course.is_due(100.0)
    course.note(100.0, 1_000, totals(50))
    assert course.points == []
    assert not course.is_due(100.0 + EVERY_S - 0.1)
    assert course.is_due(100.0 + EVERY_S)
    course.note(105.0, 6_000, totals(150, 10, (90, 10, 0, 0)))
    course.note(110.0, 11_000, totals(150, 10, (90, 10, 0, 0)))
    first, second = course.points
    assert (first.at_ms, first.requests_per_s, first.errors_per_s, first.in_flight) == (6_000, 20.0, 2.0, 2)
    assert (first.first_byte_p50_s, first.first_byte_p95_s) == (0.0556, 0.55)
    assert (second.requests_per_s, second.first_byte_p50_s) == (0.0, None)


def test_old_points_are_given_up():
    course = Course(BOUNDS_S)
    for number in range(500):
        course.note(number * EVERY_S, number, totals(number))
    assert (len(course.points), course.points[-1].at_ms) == (180, 499)


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ((), 0.5, None),
        ((0, 0, 0, 0), 0.5, None),
        ((4, 0, 0, 0), 0.5, 0.05),
        ((0, 10, 0, 0), 0.5, 0.55),
        ((5, 0, 5, 0), 0.95, 9.1),
        ((0, 0, 0, 7), 0.5, 10.0),
    ],
)
def test_a_quantile_lies_straight_between_the_bounds_of_its_bucket(counts, share, expected):
    assert quantile(BOUNDS_S, counts, share) == expected
