"""The rows of the testing procedures about machines' workers, the monitor's state and its live events."""

from typing import Any

import pytest

from tests.conformance.queue.conftest import GPUS, MACHINE, Site
from tests.conformance.queue.live import Live, Picture

NAMES = [f"{MACHINE}-worker-{index}" for index in range(GPUS)]


def watch_of(site: Site) -> Live:
    assert site.watch is not None
    return site.watch


def worker(machine_id: str, index: int = 0, status: str = "idle", **fields: Any) -> dict[str, Any]:
    return {"worker_id": f"{machine_id}-worker-{index}", "index": index, "status": status} | fields


def test_1_4_the_state_has_its_four_parts(site: Site) -> None:
    answer = site.plane.get("/api/monitor/state")
    assert answer["success"] is True
    assert {"machines", "workers", "jobs", "system_stats"} <= answer["data"].keys()
    assert answer["data"]["jobs"].keys() == {"pending", "active", "completed", "failed"}
    assert isinstance(answer["timestamp"], int)


def test_1_5_a_worker_is_seen_busy_and_then_idle_again(site: Site) -> None:
    with site.live() as live:
        live.wait_for_snapshot()
        (job_id,) = site.submit(duration_ms=300)
        live.wait_for(
            lambda live: any(
                worker["status"] == "busy" and job_id in worker["current_jobs"]
                for update in live.of("machine_update")
                for worker in update["workers"]
            )
        )
        live.wait_for(
            lambda live: [worker["status"] for worker in Picture(live.messages).workers.values()] == ["idle"] * GPUS
        )
    site.wait_for_workers(GPUS)


def test_1_6_the_stream_begins_with_connected_and_the_whole_state(site: Site) -> None:
    with site.live() as live:
        data = live.wait_for_snapshot()["data"]
        assert [message["type"] for message in live.messages[:2]] == ["connected", "full_state_snapshot"]
    assert {"machines", "workers", "jobs"} <= data.keys()


def test_3_2_the_machine_is_listed_once_and_ready(site: Site) -> None:
    (machine,) = site.state()["machines"]
    assert (machine["machine_id"], machine["status"]) == (MACHINE, "ready")
    assert len(site.workers()) == GPUS


def test_4_1_workers_have_the_names_of_their_machine(site: Site) -> None:
    workers = site.workers()
    assert [worker["worker_id"] for worker in workers] == NAMES
    assert [worker["id"] for worker in workers] == NAMES


def test_4_2_workers_say_what_they_can_do(site: Site) -> None:
    for shown in site.workers():
        assert (shown["machine_id"], shown["status"]) == (MACHINE, "idle")
        assert shown["capabilities"]["services"][0] == "simulation"
        assert shown["connector_statuses"].keys() == set(shown["capabilities"]["services"])
        assert set(shown["connector_statuses"].values()) == {"running"}


def test_5_1_a_machine_without_workers_is_listed(bare: Site) -> None:
    bare.beat("without-workers", phase="starting")
    assert bare.machine_shown("without-workers")["status"] == "starting"
    assert bare.workers("without-workers") == []


def test_5_3_health_answers_ok(site: Site) -> None:
    assert site.plane.get("/health")["status"] == "ok"


def test_6_everything_that_is_asked_in_the_document_answers(site: Site) -> None:
    state = site.state()
    assert [machine["status"] for machine in state["machines"]] == ["ready"]
    assert [worker["status"] for worker in state["workers"]] == ["idle"] * GPUS
    for path in ("/health", "/version", "/api/monitor/state", "/api/jobs", "/api/v1/stats", "/api/v1/nodes"):
        assert site.plane.get(path) is not None


def test_7_the_quick_check_counts_one_machine_and_its_workers(site: Site) -> None:
    state = site.state()
    assert (len(state["machines"]), len(state["workers"])) == (1, GPUS)


def test_9_a_machine_is_told_of_before_its_workers_and_their_jobs(own_site: Site) -> None:
    job_ids = own_site.submit(4)
    with own_site.live() as live:
        live.wait_for_snapshot()
        own_site.machine()
        live.wait_for(lambda live: live.ended() >= set(job_ids))
        machines: set[str] = set()
        for message in live.messages:
            if message["type"] == "machine_update":
                machines.add(message["machine"]["machine_id"])
            elif message["type"] == "job_update" and message["job"]["worker_id"]:
                assert MACHINE in machines


def test_9_a_worker_that_comes_before_its_machine_is_held(bare: Site) -> None:
    name = "late-machine"
    session = {"node_id": name, "worker_id": f"{name}-worker-0", "session_id": "s-late"}
    with bare.live() as live:
        live.wait_for_snapshot()
        capability = {"services": ["held-back"]}
        bare.plane.post("/api/agent/session", session | {"capability": capability})
        assert bare.workers(name) == []
        assert "unknown" not in {worker["machine_id"] for worker in bare.workers()}

        bare.beat(name, workers=[worker(name)])

        assert [worker["machine_id"] for worker in bare.workers(name)] == [name]
        live.wait_for(lambda live: name in Picture(live.messages).machines)
        named = [update for update in live.of("machine_update") if update["machine"]["machine_id"] == name]
        assert [worker["machine_id"] for worker in named[0]["workers"]] == [name]


def test_u1_there_are_as_many_workers_as_gpus(bare: Site) -> None:
    gpus_of = {f"machine-of-{gpus}": gpus for gpus in range(1, 9)}
    bare.machines(gpus_of)
    for name, gpus in gpus_of.items():
        bare.wait_for_workers(gpus, name)
        assert [worker["worker_id"] for worker in bare.workers(name)] == [f"{name}-worker-{n}" for n in range(gpus)]
        assert [worker["gpu_index"] for worker in bare.workers(name)] == list(range(gpus))


def test_u2_no_worker_belongs_to_an_unknown_machine(site: Site) -> None:
    assert {worker["machine_id"] for worker in site.workers()} == {MACHINE}
    told = {worker["machine_id"] for update in watch_of(site).of("machine_update") for worker in update["workers"]}
    assert told == {MACHINE}


@pytest.mark.parametrize("name", ["unknown", ""])
def test_u2_the_control_plane_takes_no_machine_without_a_name(bare: Site, name: str) -> None:
    with pytest.raises(AssertionError, match="400"):
        bare.beat(name)


def test_u5_a_monitor_stays_connected_through_a_start_and_a_burst(site: Site) -> None:
    watch = watch_of(site)  # open since before the machine started
    job_ids = site.submit(150)
    watch.wait_for(lambda live: live.ended() >= set(job_ids))
    assert not watch.broken
    assert len(watch.of("connected")) == 1
    assert watch.of("resync") == []
    watch.wait_for(
        lambda live: (
            {(worker["worker_id"], worker["machine_id"]) for worker in Picture(live.messages).workers.values()}
            == {(name, MACHINE) for name in NAMES}
        )
    )
