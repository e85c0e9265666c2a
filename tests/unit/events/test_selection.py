"""What a monitor of some machines is told of."""

from msgspec import Struct

from muster.events.selection import Selection


class SomeJob(Struct, frozen=True):
    job_id: str
    machine_id: str | None
    final: bool = False


def selection() -> Selection:
    return Selection(frozenset({"m1"}))


def test_jobs_of_other_machines_and_of_none_are_not_for_it() -> None:
    mine = selection()
    assert [mine.has_machine(name) for name in ("m1", "m2")] == [True, False]
    assert not mine.has_job(SomeJob("waits", None))
    assert not mine.has_job(SomeJob("elsewhere", "m2"))
    assert not mine.has_progress("elsewhere")


def test_a_job_is_told_of_as_long_as_it_is_here_and_once_more_when_it_left() -> None:
    mine = selection()
    assert mine.has_job(SomeJob("job", "m1"))
    assert mine.has_progress("job")
    assert mine.has_job(SomeJob("job", "m2"))
    assert not mine.has_progress("job")
    assert not mine.has_job(SomeJob("job", "m2"))


def test_a_job_that_ended_here_is_forgotten() -> None:
    mine = selection()
    assert mine.has_job(SomeJob("job", "m1"))
    assert mine.has_job(SomeJob("job", "m1", final=True))
    assert not mine.has_progress("job")


def test_a_snapshot_says_which_jobs_are_here() -> None:
    mine = selection()
    assert mine.has_job(SomeJob("before", "m1"))
    mine.shown([SomeJob("now", "m1"), SomeJob("elsewhere", "m2")])
    assert [mine.has_progress(name) for name in ("before", "now", "elsewhere")] == [False, True, False]
    assert mine.has_job(SomeJob("now", None))  # back in line
