"""Nodes and jobs as the API shows them, made by the views themselves."""

import json
from typing import Any

import msgspec

from muster.api.views import job_view, machine_view, worker_views
from muster.cli.top.picture import Picture
from muster.domain.gpu import Gpu
from muster.domain.job import Job, JobSpec, JobState, JobStatus
from muster.domain.node import Health, Node, NodeFacts, Phase
from muster.domain.worker import Worker, WorkerStatus
from muster.ids import JobId, NodeId, WorkerId

NOW_MS = 1_700_000_000_000
STATUSES = ("pending", "assigned", "in_progress", "completed", "failed", "cancelled", "timeout", "unworkable")


def plain(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


def gpu(index: int = 0, **figures: Any) -> Gpu:
    known: dict[str, Any] = {"memory_total_mb": 24_576, "memory_used_mb": 6144, "utilization_percent": 50.0}
    return Gpu(index=index, name="NVIDIA L4", **(known | {"temperature_c": 61.0, "power_w": 70.0} | figures))


def machine_update(node_id: str, *gpus: Gpu, jobs: tuple[str, ...] = (), workers: int = 1, **changes: Any) -> Any:
    facts = changes.pop("facts", {})
    node = Node(
        facts=NodeFacts(node_id=NodeId(node_id), **facts),
        health=changes.pop("health", Health.HEALTHY),
        phase=Phase.READY,
        last_seen_ms=NOW_MS - 2000,
        gpus=gpus,
        workers=tuple(
            Worker(
                worker_id=WorkerId(f"{node_id}-worker-{index}"),
                index=index,
                status=WorkerStatus.BUSY if index < len(jobs) else WorkerStatus.IDLE,
                connectors=("simulation",),
                current_jobs=(JobId(jobs[index]),) if index < len(jobs) else (),
            )
            for index in range(workers)
        ),
        **changes,
    )
    machine = machine_view(node, late=False, now_ms=NOW_MS)
    return plain({"type": "machine_update", "machine": machine, "workers": worker_views(node)})


def job_update(job_id: str, status: JobStatus = JobStatus.PENDING, **changes: Any) -> Any:
    spec_fields: dict[str, Any] = {"service_required": "simulation", "created_at": NOW_MS - 60_000}
    spec_fields |= {name: changes.pop(name) for name in list(changes) if name in JobSpec.__struct_fields__}
    spec = JobSpec(job_id=JobId(job_id), **spec_fields)
    view = job_view(Job(spec=spec, state=JobState(status=status, **changes)), whole=False)
    return plain({"type": "job_update", "job": view})


def stats(requests_total: int = 0, started_at: int = 1, **counts: int) -> dict[str, Any]:
    return {
        "started_at": started_at,
        "jobs": dict.fromkeys(STATUSES, 0) | counts,
        "gateway": {"in_flight": 2, "requests_total": requests_total, "errors_total": 1},
    }


def snapshot(*updates: Any, **counts: int) -> dict[str, Any]:
    machines = [update for update in updates if update["type"] == "machine_update"]
    jobs = [update["job"] for update in updates if update["type"] == "job_update"]
    return {
        "type": "full_state_snapshot",
        "timestamp": NOW_MS,
        "data": {
            "machines": [update["machine"] for update in machines],
            "workers": [worker for update in machines for worker in update["workers"]],
            "jobs": {"pending": jobs, "active": [], "completed": [], "failed": []},
            "system_stats": stats(**counts),
        },
    }


def picture_of(*updates: Any, **counts: int) -> Picture:
    picture = Picture()
    picture.take(snapshot(*updates, **counts), 0.0, NOW_MS)
    return picture
