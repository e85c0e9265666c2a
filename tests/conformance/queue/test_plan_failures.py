"""The rows of the test plan's failures 1 to 3: whose worker is it, a monitor under load, as many workers as GPUs."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.queue.conftest import (
    FLEET_GPUS,
    FLEET_MACHINES,
    FLEET_POOLS,
    GPUS,
    MACHINE,
    Site,
)
from tests.conformance.queue.live import Picture
from tests.muster_process import MusterProcess
from tests.waiting import eventually_sync

_BATCHES_UNREAD = 10


def machine_ids(workers: Iterable[dict[str, Any]]) -> set[str]:
    return {worker["machine_id"] for worker in workers}


# --- failure 1: workers of an unknown machine -----------------------------------------------------------------------


def test_f1_u1_to_u3_machine_id_is_read_and_reported_in_registration_and_heartbeats(site: Site) -> None:
    told = {
        update["machine"]["machine_id"]: update["workers"]
        for update in (site.watch or site.live()).of("machine_update")
    }
    assert told.keys() == {MACHINE}  # the environment gave it as MACHINE_ID and nothing else did
    assert machine_ids(told[MACHINE]) == {MACHINE}
    registered = [fact["key"] for fact in site.facts() if fact["kind"] == "node_registered"]
    assert registered == [MACHINE]


def test_f1_i1_and_i2_workers_survive_a_restart_and_follow_a_new_name(own_site: Site) -> None:
    first = own_site.machine()
    own_site.wait_for_workers(GPUS)
    first.kill()
    first.start()
    eventually_sync(lambda: "node_rebooted" in [fact["kind"] for fact in own_site.facts()], 30)
    own_site.wait_for_workers(GPUS)
    assert machine_ids(own_site.workers()) == {MACHINE}

    first.kill()
    own_site.machine("new-name", env={"MUSTER_DATA_DIR": first.env["MUSTER_DATA_DIR"]})

    own_site.wait_for_workers(GPUS, "new-name")
    eventually_sync(lambda: own_site.machine_shown()["status"] == "offline", 30)
    assert {worker["status"] for worker in own_site.workers(MACHINE)} == {"stopped"}
    (job,) = own_site.wait_for_ends(own_site.submit())
    assert job["worker_id"].startswith("new-name-worker-")


@pytest.mark.parametrize("name", ["unknown", "Unknown", " "])
def test_f1_p_an_agent_without_a_name_does_not_start(bare: Site, name: str) -> None:
    process = bare.machine("nameless", env={"MACHINE_ID": name})
    assert process.wait() != 0
    assert "MACHINE_ID" in process.log
    assert "--node-id" in process.log  # the next step
    assert name not in machine_ids(bare.workers())


# --- failure 2: a monitor that loses its connection under load ------------------------------------------------------


def test_f2_l1_and_s1_a_monitor_follows_all_workers_of_a_large_fleet(fleet: Site) -> None:
    with fleet.live() as live:
        picture = Picture([live.wait_for_snapshot()])
        assert (len(picture.machines), len(picture.workers)) == (FLEET_MACHINES, FLEET_MACHINES * FLEET_GPUS)
        heard: set[str] = set()

        def all_were_heard(_: object) -> bool:
            heard.update(update["machine"]["machine_id"] for update in live.of("machine_update"))
            return len(heard) == FLEET_MACHINES

        live.wait_for(all_were_heard)
        assert not live.broken
        assert live.of("resync") == []
        assert len(Picture(live.messages).workers) == FLEET_MACHINES * FLEET_GPUS


def test_f2_l2_a_burst_of_jobs_has_an_end_told_for_each(fleet: Site) -> None:
    with fleet.live() as live:
        live.wait_for_snapshot()
        job_ids = set(fleet.submit(150))
        live.wait_for(lambda live: live.ended() >= job_ids)
        assert not live.broken
        assert live.of("resync") == []
    ends = [job["job_id"] for job in live.jobs() if job["job_id"] in job_ids and job["status"] == "completed"]
    assert set(ends) == job_ids


def test_f2_l3_a_monitor_that_lost_its_connection_gets_what_it_missed(bare: Site) -> None:
    bare.beat("was-there")
    with bare.live() as live:
        live.wait_for_snapshot()
        (before,) = bare.submit()
        live.wait_for(lambda live: before in Picture(live.messages).jobs)
        bare.beat("was-there", seq=2)
        live.wait_for(lambda live: live.messages[-1]["event_id"] or live.last_event_id)
        last_id, messages = live.last_event_id, live.messages

    missed = bare.submit(30)
    bare.beat("is-new")
    bare.plane.post(f"/api/jobs/{before}/cancel")

    with bare.live(last_event_id=last_id) as live:
        live.wait_for(lambda live: {*missed, before} <= {job["job_id"] for job in live.jobs()})
        live.wait_for(lambda live: "is-new" in Picture(messages + live.messages).machines)
        assert live.of("full_state_snapshot") == []
        picture = Picture(messages + live.messages)
    for job_id in (before, *missed):
        assert picture.jobs[job_id]["status"] == bare.job(job_id)["status"]
    assert picture.machines.keys() == {machine["machine_id"] for machine in bare.state()["machines"]}


def test_f2_l3_a_monitor_that_returns_to_another_process_gets_the_whole_state(own_site: Site) -> None:
    (job_id,) = own_site.submit()
    with own_site.live() as live:
        live.wait_for_snapshot()
        own_site.plane.kill()
        live.wait_for(lambda live: live.broken)
        last_id, messages = live.last_event_id, live.messages
    own_site.plane.start()
    (missed,) = own_site.submit()
    with own_site.live(last_event_id=last_id) as live:
        live.wait_for(lambda live: {job_id, missed} <= Picture(messages + live.messages).jobs.keys())


def test_f2_s1_a_hundred_machines_are_listed_told_of_and_degrade_with_a_notice(
    tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    """The plan's page in 2 s and critical update in 5 s are recorded; a busy machine has longer."""
    names = [f"m-{number:03}" for number in range(100)]
    site = Site(tmp_path, {"MUSTER_STREAM_BUFFER_BYTES_MAX": "65536"}).start()

    def beat(name: str, seq: int, **fields: Any) -> None:
        workers = [{"worker_id": f"{name}-worker-{index}", "index": index, "status": "idle"} for index in range(4)]
        site.beat(name, seq, workers=workers, **fields)

    try:
        for name in names:
            beat(name, 1)
        started_s = time.monotonic()
        state = site.state("limit=100")
        record_property("page_s", round(time.monotonic() - started_s, 3))
        assert {machine["machine_id"] for machine in state["machines"]} == set(names)
        assert len({worker["worker_id"] for worker in state["workers"]}) == 400
        with site.live() as live:
            assert len(live.wait_for_snapshot()["data"]["workers"]) == 400
            job = {"service_required": "simulation"}
            with live.looking_away():  # until there is more than a reader may have unread
                for _ in range(_BATCHES_UNREAD):
                    site.plane.post("/api/jobs/batch", {"jobs": [job] * 1000})
            started_s = time.monotonic()
            beat(names[42], 2, status="unhealthy", reason="it is on fire")
            live.wait_for(lambda live: Picture(live.messages).machines[names[42]]["reason"] == "it is on fire")
            record_property("critical_update_s", round(time.monotonic() - started_s, 3))
            live.wait_for(lambda live: live.of("resync"))
            live.wait_for(lambda live: len(live.of("full_state_snapshot")) > 1)
            assert all(notice["reason"] for notice in live.of("resync"))
            assert not live.broken
            last = live.of("full_state_snapshot")[-1]["data"]
            assert (len(last["machines"]), len(last["workers"])) == (100, 400)
    finally:
        site.remove()


def test_f2_s2_the_last_state_counts_however_often_it_changed(bare: Site) -> None:
    name, changes = "flapping", 301
    with bare.live() as live:
        live.wait_for_snapshot()
        for seq in range(1, changes + 1):
            bare.beat(name, seq=seq, status=("degraded", "healthy")[seq % 2])
        bare.beat(name, seq=changes + 1, status="unhealthy", reason="the last word")
        live.wait_for(lambda live: Picture(live.messages).machines[name]["reason"] == "the last word")
        assert bare.machine_shown(name)["health_status"] == "unhealthy"
        told = [update for update in live.of("machine_update") if update["machine"]["machine_id"] == name]
        assert len(told) <= changes + 1
        assert not live.broken


def test_f2_a1_machines_come_in_pages_and_by_pool(fleet: Site) -> None:
    seen: list[str] = []
    for page in (1, 2, 3):
        answer = fleet.plane.get(f"/api/monitor/state?page={page}&limit=10")
        assert answer["pagination"] == {"page": page, "limit": 10, "total": FLEET_MACHINES}
        shown = [machine["machine_id"] for machine in answer["data"]["machines"]]
        assert machine_ids(answer["data"]["workers"]) == set(shown)
        seen += shown
    assert len(set(seen)) == len(seen) == FLEET_MACHINES
    assert fleet.state("page=4&limit=10")["machines"] == []
    for pool in FLEET_POOLS:
        answer = fleet.plane.get(f"/api/monitor/state?pool={pool}&limit=20")
        assert answer["pagination"]["total"] == FLEET_MACHINES // 2
        assert {machine["pool"] for machine in answer["data"]["machines"]} == {pool}


def test_f2_a2_only_what_concerns_the_chosen_machines_arrives(fleet: Site) -> None:
    chosen = {"machine-007", "machine-012"}
    with fleet.live(machines=",".join(chosen)) as live, fleet.live() as all_of_it:
        data = live.wait_for_snapshot()["data"]
        all_of_it.wait_for_snapshot()
        assert {machine["machine_id"] for machine in data["machines"]} == machine_ids(data["workers"]) == chosen
        job_ids = set(fleet.submit(FLEET_MACHINES * FLEET_GPUS, duration_ms=20))
        all_of_it.wait_for(lambda live: live.ended() >= job_ids)
        mine = {
            job_id
            for job_id in job_ids
            if (worker_id := Picture(all_of_it.messages).jobs[job_id]["worker_id"])
            and worker_id.rsplit("-worker-", 1)[0] in chosen
        }
        live.wait_for(lambda live: live.ended() >= mine)
    assert {update["machine"]["machine_id"] for update in live.of("machine_update")} <= chosen
    assert {job["job_id"] for job in live.jobs()} == mine
    assert {message["job_id"] for message in live.of("job_progress")} <= mine


# --- failure 3: two workers whatever NUM_GPUS says ------------------------------------------------------------------


def test_f3_i2_another_number_of_gpus_leaves_no_orphan(own_site: Site) -> None:
    process: MusterProcess | None = None
    for gpus in (2, 4, 1):
        if process is not None:
            process.kill()
        process = own_site.machine(gpus=gpus)
        own_site.wait_for_workers(gpus)
        assert own_site.machine_shown()["gpu_count"] == gpus
    job_ids = own_site.submit(4)
    assert {job["worker_id"] for job in own_site.wait_for_ends(job_ids)} == {f"{MACHINE}-worker-0"}
