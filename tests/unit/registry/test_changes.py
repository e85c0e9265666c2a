import msgspec
import pytest

from muster.domain.node import Health, Node, Phase, Resources
from muster.domain.service import ServiceStatus
from muster.domain.worker import WorkerStatus
from muster.ids import JobId
from muster.registry.changes import changes
from tests.unit.registry.makers import NODE, events, facts, kinds, service, worker

BEFORE = Node(
    facts=facts(),
    health=Health.HEALTHY,
    phase=Phase.READY,
    boot_id="boot-a",
    workers=(worker(0), worker(1)),
    services=(service("llama", ServiceStatus.RUNNING, "smol"),),
)


def after(**fields: object) -> Node:
    return msgspec.structs.replace(BEFORE, **fields)


def test_figures_that_move_are_no_facts() -> None:
    assert changes(BEFORE, after(seq=9, last_seen_ms=5, resources=Resources(cpu_percent=3.0)), 5) == []


def test_every_fact_names_the_node_and_the_time() -> None:
    (event,) = events(changes(BEFORE, after(phase=Phase.STOPPING, reason="asked to"), 5))
    assert (event.kind, event.key, event.at_ms) == ("node_phase_changed", NODE, 5)
    assert event.data == {"node_id": NODE, "from": "ready", "to": "stopping", "reason": "asked to"}


@pytest.mark.parametrize(
    ("was", "now", "kind"),
    [
        (Health.REGISTERING, Health.HEALTHY, "node_health_changed"),
        (Health.HEALTHY, Health.DEGRADED, "node_health_changed"),
        (Health.HEALTHY, Health.STALE, "node_stale"),
        (Health.STALE, Health.DEAD, "node_dead"),
        (Health.STALE, Health.HEALTHY, "node_recovered"),
        (Health.DEAD, Health.UNHEALTHY, "node_recovered"),
    ],
)
def test_a_change_of_health_is_one_fact(was: Health, now: Health, kind: str) -> None:
    before = msgspec.structs.replace(BEFORE, health=was, connected=was is not Health.DEAD)
    fell = {"phase": Phase.OFFLINE} if now is Health.DEAD else {}
    found = changes(before, after(health=now, connected=now is not Health.DEAD, **fell), 5)
    assert kinds(found) == [kind]
    assert events(found)[0].data == {"node_id": NODE, "from": was, "to": now}


def test_reboot_draining_and_link_are_facts() -> None:
    assert kinds(changes(BEFORE, after(boot_id="boot-b"), 5)) == ["node_rebooted"]
    assert kinds(changes(BEFORE, after(draining=True), 5)) == ["node_draining_changed"]
    (moved,) = events(changes(BEFORE, after(link="amqp"), 5))
    assert (moved.kind, moved.data) == ("node_link_changed", {"node_id": NODE, "link": "amqp", "connected": True})
    assert kinds(changes(BEFORE, after(connected=False), 5)) == ["node_link_changed"]
    closed = after(connected=False, health=Health.STALE)
    assert kinds(changes(closed, after(), 5)) == ["node_recovered", "node_link_changed"]


def test_a_worker_changes_by_status_or_jobs_or_by_coming_and_going() -> None:
    busy = worker(0, WorkerStatus.BUSY, current_jobs=(JobId("job-1"),))
    found = events(changes(BEFORE, after(workers=(busy, worker(2))), 5))
    assert [event.kind for event in found] == ["worker_status_changed"] * 3
    assert [(event.data["worker_id"], event.data["from"], event.data["to"]) for event in found] == [
        ("gpu-1-worker-0", "idle", "busy"),
        ("gpu-1-worker-2", None, "idle"),
        ("gpu-1-worker-1", "idle", None),
    ]
    assert found[0].data["current_jobs"] == ("job-1",)
    other_job = worker(0, WorkerStatus.BUSY, current_jobs=(JobId("job-2"),))
    assert kinds(changes(after(workers=(busy,)), after(workers=(other_job,)), 5)) == ["worker_status_changed"]
    counted = worker(0, jobs_completed=7)
    assert changes(BEFORE, after(workers=(counted, worker(1))), 5) == []


def test_connectors_that_change_are_told_once_for_all_workers() -> None:
    running, silent = {"comfyui": "running"}, {"comfyui": "unhealthy"}
    both = after(workers=(worker(0, connector_statuses=running), worker(1, connector_statuses=running)))
    (event,) = events(changes(BEFORE, both, 5))
    assert event.kind == "connector_status_changed"
    assert event.data["workers"] == {"gpu-1-worker-0": running, "gpu-1-worker-1": running}
    (event,) = events(changes(both, after(workers=(worker(0, connector_statuses=silent), both.workers[1])), 5))
    assert event.data["workers"] == {"gpu-1-worker-0": silent}


def test_a_service_changes_by_status_and_tells_its_error() -> None:
    failed = service("llama", ServiceStatus.FAILED, "smol", error="exit code 1")
    (event,) = events(changes(BEFORE, after(services=(failed,)), 5))
    assert event.data == {
        "node_id": NODE,
        "service": "llama",
        "from": "running",
        "to": "failed",
        "reason": "exit code 1",
    }
    assert changes(BEFORE, after(services=(service("llama", ServiceStatus.RUNNING, "smol", slots_busy=3),)), 5) == []


def test_models_that_come_and_go_are_told_by_their_plain_names() -> None:
    gone = events(changes(BEFORE, after(services=()), 5))
    assert [event.kind for event in gone] == ["service_status_changed", "models_changed"]
    assert gone[1].data == {"node_id": NODE, "added": [], "removed": ["smol"]}
    same = service("llama", ServiceStatus.RUNNING, "smol:latest")
    assert changes(BEFORE, after(services=(same,)), 5) == []
