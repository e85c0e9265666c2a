from collections.abc import Mapping

from muster.cli.top.picture import Picture
from muster.domain.job import JobStatus
from tests.unit.cli.top.fleets import NOW_MS, job_update, machine_update, picture_of, snapshot, stats


def take(picture: Picture, *events: Mapping[str, object], now_s: float = 0.0) -> None:
    for event in events:
        picture.take(event, now_s, NOW_MS)


def test_a_snapshot_replaces_all_that_was_known() -> None:
    picture = picture_of(machine_update("old"), job_update("j-old"))
    take(picture, snapshot(machine_update("new"), job_update("j-new")))

    assert list(picture.machines) == ["new"]
    assert list(picture.workers) == ["new"]
    assert list(picture.jobs) == ["j-new"]


def test_updates_change_what_they_are_about_and_twice_is_harmless() -> None:
    picture = picture_of(machine_update("a"), machine_update("b"))
    for _ in range(2):
        take(picture, machine_update("a", draining=True, jobs=("j1",)), job_update("j1", JobStatus.ASSIGNED))

    assert picture.machines["a"]["draining"]
    assert not picture.machines["b"]["draining"]
    assert picture.workers["a"][0]["current_jobs"] == ["j1"]
    assert picture.jobs["j1"]["status"] == "assigned"


def test_a_node_that_is_gone_takes_its_workers_along() -> None:
    picture = picture_of(machine_update("a"))
    take(picture, {"type": "machine_removed", "machine_id": "a"}, {"type": "machine_removed", "machine_id": "b"})

    assert (picture.machines, picture.workers) == ({}, {})


def test_signs_of_life_and_progress_are_for_what_is_known() -> None:
    picture = picture_of(machine_update("a"), job_update("j1"))
    sign = {"type": "periodic_status_update", "status": "offline", "last_seen": 5, "timestamp": NOW_MS}
    take(picture, sign | {"machine_id": "a"}, sign | {"machine_id": "unknown"})
    step = {"type": "job_progress", "progress": {"fraction": 0.5, "message": None}}
    take(picture, step | {"job_id": "j1"}, step | {"job_id": "unknown"})

    assert picture.machines["a"]["last_seen"] == 5
    assert picture.jobs["j1"]["progress"]["fraction"] == 0.5
    assert "unknown" not in picture.machines | picture.jobs


def test_events_of_newer_versions_are_left_alone() -> None:
    take(Picture(), {"type": "something_new"}, {"type": "connected", "timestamp": 1}, {"type": "resync", "reason": "x"})


def test_requests_per_second_are_over_the_last_ten_seconds_and_unknown_at_first() -> None:
    picture = picture_of()
    assert picture.requests_per_s is None
    for second in range(1, 41):
        take(picture, {"type": "system_stats", "data": stats(requests_total=10 * second)}, now_s=float(second))

    assert picture.requests_per_s == 10.0


def test_a_control_plane_that_was_started_anew_counts_anew() -> None:
    picture = picture_of()
    take(picture, {"type": "system_stats", "data": stats(1000)}, now_s=2.0)
    take(picture, {"type": "system_stats", "data": stats(3, started_at=2)}, now_s=4.0)
    assert picture.requests_per_s is None
    take(picture, {"type": "system_stats", "data": stats(7, started_at=2)}, now_s=6.0)

    assert picture.requests_per_s == 2.0


def test_jobs_are_bounded_and_those_that_run_are_kept_longest() -> None:
    picture = picture_of()
    take(picture, job_update("runs", JobStatus.IN_PROGRESS), job_update("waits", created_at=NOW_MS - 90_000))
    for number in range(2000):
        take(picture, job_update(f"j{number}", JobStatus.COMPLETED, completed_at=NOW_MS + number))

    assert len(picture.jobs) <= 1000
    assert {"runs", "waits", "j1999"} <= picture.jobs.keys()
    assert "j0" not in picture.jobs


def test_who_waits_is_corrected_but_never_what_was_claimed_since() -> None:
    picture = picture_of(job_update("a", JobStatus.UNWORKABLE), job_update("b", JobStatus.ASSIGNED))
    picture.take_waiting([job_update(name)["job"] for name in ("a", "b", "c")])

    assert {job_id: job["status"] for job_id, job in picture.jobs.items()} == {
        "a": "pending",
        "b": "assigned",
        "c": "pending",
    }


def test_the_clock_of_the_control_plane_counts() -> None:
    picture = Picture()
    picture.take({"type": "connected", "timestamp": NOW_MS}, 0.0, NOW_MS - 5000)

    assert picture.ahead_ms == 5000
