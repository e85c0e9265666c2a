import re

from muster.metrics import FAMILIES, JOB_WAIT, OTHER, Histogram


def test_names_say_their_unit_and_kind() -> None:
    for name, family in FAMILIES.items():
        assert re.fullmatch(r"muster_[a-z][a-z0-9_]*", name)
        assert name.endswith("_total") is (family.kind == "counter")
        assert family.kind != "histogram" or name.endswith("_seconds")
        assert family.help.endswith(".")
        assert not {"le", "job", "instance"} & set(family.labels), "Prometheus has these for itself"


def test_every_family_is_listed_once() -> None:
    text = [family.name for family in FAMILIES.values()]

    assert len(text) == len(set(text)) > 40


def test_a_histogram_counts_what_is_not_above_its_bounds() -> None:
    times = Histogram((1.0, 5.0), 10)
    for value in (0.5, 1.0, 3.0, 99.0):
        times.observe(value, "a")

    assert list(times.metric(JOB_WAIT).samples) == [
        ("_bucket", ("a", "1.0"), 2),
        ("_bucket", ("a", "5.0"), 3),
        ("_bucket", ("a", "+Inf"), 4),
        ("_sum", ("a",), 103.5),
        ("_count", ("a",), 4),
    ]


def test_a_histogram_tells_apart_no_more_than_its_bound() -> None:
    times = Histogram((1.0,), 2)
    for label in ("a", "b", "c", "d", "a"):
        times.observe(0.1, label)

    counts = {labels: value for suffix, labels, value in times.metric(JOB_WAIT).samples if suffix == "_count"}
    assert counts == {("a",): 2, ("b",): 1, (OTHER,): 2}
