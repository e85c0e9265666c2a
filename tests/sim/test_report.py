from muster.sim.report import Report, Violation, render

WHOLE = Report(
    seed=7,
    nodes=3,
    events=12_345,
    duration_virtual_s=1_230.0,
    jobs={"completed": 40, "failed": 0},
    faults={"node crashes": 2},
    attempts=45,
    choices=6,
    violations=(),
    trace_hash="abc",
)


def test_a_world_in_which_all_went_well_says_so() -> None:
    assert render(WHOLE).splitlines() == [
        "seed 7: 3 nodes, 20.5 virtual minutes, 12,345 events",
        "jobs:   40 completed; 45 attempts; 6 requests placed",
        "faults: 2 node crashes",
        "trace:  abc",
        "every rule held",
    ]
    assert WHOLE.ok


def test_a_broken_rule_comes_with_its_story_and_the_way_to_see_it_again() -> None:
    violation = Violation(rule="a job ends once", subject="job-4", text="ended twice", at_s=61.5, story=("one", "two"))
    broken = Report(
        seed=7, nodes=3, events=1, duration_virtual_s=60.0, faults={}, violations=(violation,), trace_hash="abc"
    )
    assert not broken.ok
    assert render(broken).splitlines()[-6:] == [
        "",
        "BROKEN at 61.500 s: a job ends once: job-4 ended twice",
        "  one",
        "  two",
        "",
        "1 rules broken; replay: muster sim --seed 7",
    ]
