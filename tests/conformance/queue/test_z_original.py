"""The checks of the original queue's own end-to-end test. Last, because one of them is about what comes by itself."""

from tests.conformance.queue.conftest import GPUS, MACHINE, Site
from tests.conformance.queue.live import Picture
from tests.conformance.queue.test_procedures import watch_of, worker

PERIODIC = {"periodic_status_update", "heartbeat", "full_state_snapshot"}


def test_e1_machine_and_workers_are_seen_without_a_token(site: Site) -> None:
    """The watcher has been there since before they started."""
    assert watch_of(site).of("full_state_snapshot")[0]["data"]["machines"] == []
    picture = Picture(watch_of(site).messages)
    assert picture.machines.keys() == {MACHINE}
    assert len(picture.workers) == GPUS


def test_e2_a_job_is_taken_straight_after(own_site: Site) -> None:
    own_site.machine()
    own_site.wait_for_workers(GPUS)
    (job,) = own_site.wait_for_ends(own_site.submit())
    assert job["status"] == "completed"


def test_e3_a_machine_has_its_gpus_at_the_top_level(bare: Site) -> None:
    name = "with-two-gpus"
    gpus = [{"index": index, "name": "RTX 4090", "memory_total_mb": 16 * 1024} for index in range(2)]
    services = [{"name": name, "connector": name, "status": "running"} for name in ("comfyui", "redis-worker")]
    bare.beat(name, gpus=gpus, services=services, workers=[worker(name, connectors=["simulation"])])
    with bare.live(machines=name) as live:
        (machine,) = live.wait_for_snapshot()["data"]["machines"]
    assert (machine["machine_id"], machine["status"]) == (name, "ready")
    assert (machine["gpu_count"], machine["gpu_model"], machine["gpu_memory_gb"]) == (2, "RTX 4090", 16)
    assert {"comfyui", "redis-worker", "simulation"} <= set(machine["services"])


def test_e3_and_so_has_one_with_simulated_gpus(site: Site) -> None:
    machine = site.machine_shown()
    assert (machine["gpu_count"], machine["gpu_memory_gb"]) == (GPUS, 16)
    assert machine["gpu_model"]
    assert all(gpu["simulated"] for gpu in machine["gpus"])


def test_e4_the_workers_name_the_machine(site: Site) -> None:
    with site.live() as live:
        workers = live.wait_for_snapshot()["data"]["workers"]
    assert [worker["machine_id"] for worker in workers] == [MACHINE] * GPUS


def test_e6_the_state_of_a_machine_is_told_again_and_again(site: Site) -> None:
    watch = watch_of(site)

    def periodic() -> list[float]:
        return [
            at_s
            for at_s, message in zip(watch.arrived_s, watch.messages, strict=False)
            if message["type"] in PERIODIC and message.get("machine_id") == MACHINE and message["timestamp"]
        ]

    watch.wait_for(lambda _: len(periodic()) >= 2, timeout_s=40)
    first, second, *_ = periodic()
    assert second - first < 35
