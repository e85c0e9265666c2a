"""Fleets for the monitor's tests: single nodes, a realistic mixture, and many."""

from collections.abc import Sequence
from typing import Any

from muster.domain.gpu import Gpu
from muster.domain.job import JobStatus
from muster.domain.service import ServiceStatus
from tests.monitor_server import Json, MonitorServer, now_ms

SECOND = 1000
MINUTE = 60 * SECOND


def gpu(index: int, name: str, total_mb: int, used: float | None, busy: float | None, celsius: float | None) -> Json:
    return {
        "index": index,
        "name": name,
        "memory_total_mb": total_mb,
        "memory_used_mb": None if used is None else round(total_mb * used),
        "utilization_percent": busy,
        "temperature_c": celsius,
        "power_w": None if busy is None else round(60 + 3.1 * busy),
        "simulated": False,
    }


def unread_gpu(index: int) -> Json:
    """Return a card whose driver answered nothing but its name."""
    card = Gpu(index=index, name="NVIDIA RTX A6000")
    return {name: getattr(card, name) for name in ("index", "name", "simulated")} | dict.fromkeys(
        ("memory_total_mb", "memory_used_mb", "utilization_percent", "temperature_c", "power_w")
    )


def service(
    name: str, connector: str, loaded: list[str] | None = None, *, on_disk: Sequence[str] = (), **changes: Any
) -> Json:
    return {
        "name": name,
        "connector": connector,
        "status": ServiceStatus.RUNNING,
        "url": "http://10.0.0.7:8188",
        "models": [
            *({"name": model, "resident": True} for model in loaded or []),
            *({"name": model, "resident": False} for model in on_disk),
        ],
        "slots": None,
        "slots_busy": None,
        "managed": True,
        "error": None,
        "restarts": 0,
    } | changes


def machine(machine_id: str, **changes: Any) -> Json:
    gpus = changes.get("gpus", [])
    services = changes.get("service_details", [])
    return {
        "machine_id": machine_id,
        "id": machine_id,
        "status": "ready",
        "phase": "ready",
        "health_status": "healthy",
        "reason": None,
        "connected": True,
        "draining": False,
        "late": False,
        "last_seen": now_ms() - 2 * SECOND,
        "uptime_seconds": 266_400,
        "hostname": f"{machine_id}.lan",
        "link": "http",
        "version": "0.1.0",
        "labels": {},
        "pool": None,
        "gpu_count": len(gpus),
        "gpu_model": gpus[0]["name"] if gpus else None,
        "gpu_memory_gb": gpus[0]["memory_total_mb"] // 1024 if gpus and gpus[0]["memory_total_mb"] else None,
        "gpus": gpus,
        "cpu_cores": 32,
        "resources": {
            "memory_total_mb": 131_072,
            "memory_used_mb": 42_000,
            "cpu_percent": 23.0,
            "disk_total_mb": 2_000_000,
            "disk_free_mb": 800_000,
        },
        "services": [s["name"] for s in services],
        "service_details": services,
        "models": sorted({model["name"] for s in services for model in s["models"]}),
    } | changes


def worker(machine_id: str, index: int, status: str = "idle", jobs: list[str] | None = None, **changes: Any) -> Json:
    worker_id = f"{machine_id}-worker-{index}"
    return {
        "worker_id": worker_id,
        "id": worker_id,
        "node_id": machine_id,
        "machine_id": machine_id,
        "status": status,
        "slots": 1,
        "gpu_index": index,
        "connectors": ["simulation", "comfyui"],
        "connector_statuses": {"simulation": "running", "comfyui": "running"},
        "current_jobs": jobs or [],
        "jobs_completed": 120 + 7 * index,
        "jobs_failed": index,
        "capabilities": {"services": ["simulation", "comfyui"], "models": []},
    } | changes


def job(job_id: str, status: str = JobStatus.PENDING, **changes: Any) -> Json:
    running = status in {JobStatus.ASSIGNED, JobStatus.IN_PROGRESS}
    ended = not running and status not in {JobStatus.PENDING, JobStatus.UNWORKABLE}
    now = now_ms()
    ended_at = changes.get("completed_at", now - 10 * SECOND) if ended else None
    return {
        "job_id": job_id,
        "id": job_id,
        "service_required": "simulation",
        "priority": 50,
        "payload": {"duration_ms": 4000, "steps": 20},
        "requirements": {},
        "status": status,
        "worker_id": None,
        "attempt": 1 if running or ended else 0,
        "retry_count": 0,
        "max_retries": 3,
        "timeout_s": 3600,
        "created_at": (ended_at or now) - 3 * MINUTE,
        "started_at": (ended_at or now) - MINUTE if running or ended else None,
        "completed_at": ended_at,
        "next_attempt_at": None,
        "progress": None,
        "result": {"ok": True} if status == JobStatus.COMPLETED else None,
        "error": None,
        "workflow_id": None,
        "workflow_priority": None,
        "workflow_datetime": None,
        "step_number": None,
        "customer_id": None,
    } | changes


def progress(fraction: float | None, message: str | None = None) -> Json:
    return {"fraction": fraction, "message": message, "at_ms": now_ms()}


def fill_with_many(server: MonitorServer, machines: int, workers: int) -> None:
    for number in range(machines):
        name = f"node-{number}"
        cards = [gpu(i, "NVIDIA GeForce RTX 4090", 24_564, 0.3, 40, 55) for i in range(workers)]
        server.machines[name] = machine(name, gpus=cards, service_details=[service("comfyui", "comfyui", ["flux-dev"])])
        server.workers[name] = [worker(name, i) for i in range(workers)]


def fill_realistically(server: MonitorServer) -> None:
    _add_nodes(server)
    _add_jobs(server)
    server.gateway = {"in_flight": 7, "requests_total": 18_204, "errors_total": 3}


def _add_nodes(server: MonitorServer) -> None:
    a100 = "NVIDIA A100-SXM4-80GB"
    loads = [(0.91, 97, 68), (0.91, 99, 71), (0.90, 96, 66), (0.90, 98, 69)]
    llm = ["qwen3:32b", "llama3.3:70b-instruct-q4_K_M", "gemma3:27b", "nomic-embed-text", "qwen2.5-coder:14b"]
    put = server.put_machine
    put(
        machine(
            "atlas",
            pool="llm",
            labels={"rack": "b4"},
            cpu_cores=128,
            gpus=[gpu(i, a100, 81_920, *load) for i, load in enumerate(loads)],
            service_details=[service("vllm", "vllm", llm[:2], slots=16, slots_busy=5, managed=False)],
            resources={"memory_total_mb": 1_031_000, "memory_used_mb": 212_000, "cpu_percent": 18.0},
        ),
        [worker("atlas", 0, "busy", ["job-01jbq7x2m9k4v8r3t6w1"]), *(worker("atlas", i) for i in range(1, 4))],
    )
    rtx = "NVIDIA GeForce RTX 4090"
    put(
        machine(
            "forge-1",
            pool="images",
            uptime_seconds=5_300,
            gpus=[gpu(0, rtx, 24_564, 0.76, 100, 74), gpu(1, rtx, 24_564, 0.04, 0, 38)],
            service_details=[
                service("comfyui-gpu0", "comfyui", ["flux1-dev", "sd_xl_base_1.0"]),
                service("comfyui-gpu1", "comfyui", ["flux1-dev", "sd_xl_base_1.0"]),
            ],
            resources={"memory_total_mb": 131_072, "memory_used_mb": 61_440, "cpu_percent": 41.0},
        ),
        [worker("forge-1", 0, "busy", ["job-01jbq7x4c2n8h5d0e7f2"]), worker("forge-1", 1)],
    )
    put(
        machine(
            "forge-2",
            pool="images",
            draining=True,
            gpus=[gpu(0, rtx, 24_564, 0.82, 93, 72), gpu(1, rtx, 24_564, 0.05, 1, 41)],
            service_details=[service("comfyui-gpu0", "comfyui", ["flux1-dev"]), service("comfyui-gpu1", "comfyui")],
        ),
        [worker("forge-2", 0, "busy", ["job-01jbq7x5p6s1a9b4c3g3"]), worker("forge-2", 1, "draining")],
    )
    put(
        machine(
            "garage",
            health_status="degraded",
            reason="comfyui-gpu1 fails to start: port 8189 is held by python (pid 4121)",
            gpus=[gpu(0, "NVIDIA GeForce RTX 3090", 24_576, 0.973, 88, 81), unread_gpu(1)],
            service_details=[
                service("comfyui-gpu0", "comfyui", ["sd_xl_base_1.0"]),
                service("comfyui-gpu1", "comfyui", status="failed", restarts=5, error="port 8189 is already in use"),
            ],
            resources={"memory_total_mb": 65_536, "memory_used_mb": 63_900, "cpu_percent": 77.0},
        ),
        [worker("garage", 0, "busy", ["job-01jbq7x6t7y2u3i8o5h4"]), worker("garage", 1, "error")],
    )
    put(
        machine(
            "laptop-mira",
            labels={"owner": "mira"},
            cpu_cores=10,
            service_details=[
                service("ollama", "ollama", llm[2:3], on_disk=llm[3:], slots=1, slots_busy=0, managed=False)
            ],
            resources={"memory_total_mb": 32_768, "memory_used_mb": 14_100, "cpu_percent": 9.0},
        ),
        [worker("laptop-mira", 0, gpu_index=None)],
    )
    put(
        machine(
            "spot-i-0b71c9",
            status="starting",
            phase="configuring",
            health_status="registering",
            last_seen=now_ms() - SECOND,
            uptime_seconds=14,
            pool="spot",
            gpus=[],
            gpu_count=1,
            resources=dict.fromkeys(("memory_total_mb", "memory_used_mb", "cpu_percent")),
        ),
        [worker("spot-i-0b71c9", 0, "starting")],
    )
    put(
        machine(
            "spot-i-0c44aa",
            health_status="stale",
            late=True,
            reason="no heartbeat for 2 m 10 s",
            last_seen=now_ms() - 130 * SECOND,
            pool="spot",
            gpus=[gpu(0, "NVIDIA L4", 23_034, 0.61, 70, 64)],
            service_details=[service("llama", "llamacpp", ["smollm2-135m"], slots=4, slots_busy=1)],
        ),
        [worker("spot-i-0c44aa", 0)],
    )
    put(
        machine(
            "spot-i-0a90fe",
            status="offline",
            health_status="dead",
            connected=False,
            late=True,
            reason="no heartbeat for 11 m 2 s",
            last_seen=now_ms() - 11 * MINUTE,
            pool="spot",
            gpus=[gpu(0, "NVIDIA L4", 23_034, 0.55, 12, 51)],
            service_details=[service("llama", "llamacpp", ["smollm2-135m"], status="stopped")],
        ),
        [worker("spot-i-0a90fe", 0, "stopped")],
    )


def _add_jobs(server: MonitorServer) -> None:
    now = now_ms()
    running: list[tuple[str, str, str, float | None, str]] = [
        ("job-01jbq7x2m9k4v8r3t6w1", "llm-batch", "atlas-worker-0", 0.34, "612 of 1,800 prompts"),
        ("job-01jbq7x4c2n8h5d0e7f2", "comfyui", "forge-1-worker-0", 0.68, "KSampler 17/25"),
        ("job-01jbq7x5p6s1a9b4c3g3", "comfyui", "forge-2-worker-0", 0.92, "VAE decode"),
        ("job-01jbq7x6t7y2u3i8o5h4", "comfyui", "garage-worker-0", None, "loading checkpoint"),
    ]
    for number, (job_id, need, where, fraction, message) in enumerate(running):
        server.put_job(
            job(
                job_id,
                JobStatus.IN_PROGRESS,
                service_required=need,
                worker_id=where,
                started_at=now - (number * 47 + 21) * SECOND,
                progress=progress(fraction, message),
                attempt=2 if number == 3 else 1,
            )
        )
    server.put_job(
        job(
            "job-01jbq7w0zzq1y5m2n8k5",
            JobStatus.UNWORKABLE,
            service_required="llm-batch",
            priority=90,
            created_at=now - 9 * MINUTE,
            payload={"model": "deepseek-r1:671b", "prompts": ["Summarise the meeting notes in three sentences."]},
            requirements={"models": ["deepseek-r1:671b"], "hardware": {"gpu_memory_gb": 400}},
        )
    )
    server.explanations["job-01jbq7w0zzq1y5m2n8k5"] = {
        "summary": "No worker of the fleet can run it: none has the model deepseek-r1:671b.",
        "position": 0,
        "can_run": [],
        "candidates": [
            {
                "class_id": "c7f31a",
                "sessions": 4,
                "mismatches": [
                    {"requirement": "models", "wanted": "", "found": "", "text": "lacks the model deepseek-r1:671b"},
                    {"requirement": "gpu", "wanted": 400, "found": 80, "text": "needs 400 GB of GPU memory, has 80"},
                ],
            },
            {
                "class_id": "c02be9",
                "sessions": 5,
                "mismatches": [
                    {"requirement": "service", "wanted": "", "found": "", "text": "does not serve llm-batch"},
                    {"requirement": "gpu", "wanted": 400, "found": 24, "text": "needs 400 GB of GPU memory, has 24"},
                ],
            },
        ],
    }
    for number in range(14):
        error = {"code": "upstream_timeout", "message": "comfyui said nothing for 120 s"} if number == 4 else None
        server.put_job(
            job(
                f"job-01jbq7y{number:02}h3k8m2p5r7",
                service_required="comfyui" if number % 3 else "simulation",
                priority=80 if number < 2 else 50,
                created_at=now - (200 - 11 * number) * SECOND,
                next_attempt_at=now + 24 * SECOND if error else None,
                error=error,
                attempt=1 if error else 0,
                retry_count=1 if error else 0,
            )
        )
    server.put_job(
        job(
            "job-01jbq7t8v5b0n6q9s4d6",
            JobStatus.FAILED,
            service_required="comfyui",
            worker_id="garage-worker-0",
            attempt=4,
            retry_count=3,
            completed_at=now - 4 * MINUTE,
            error={
                "code": "out_of_memory",
                "message": "CUDA out of memory. Tried to allocate 4.50 GiB. GPU 0 has a total capacity of 23.68 GiB of "
                "which 1.19 GiB is free; the process holds 22.01 GiB.",
            },
        )
    )
    server.put_job(
        job(
            "job-01jbq7s3f1x7z2c5v8b7",
            JobStatus.TIMEOUT,
            service_required="llm-batch",
            worker_id="spot-i-0a90fe-worker-0",
            completed_at=now - 10 * MINUTE,
            error={"code": "attempt_timeout", "message": "the attempt took longer than 600 s"},
        )
    )
    for number in range(12):
        ended = now - (number * 23 + 4) * SECOND
        server.put_job(
            job(
                f"job-01jbq7r{number:02}d9f4g6j1l3",
                JobStatus.CANCELLED if number == 5 else JobStatus.COMPLETED,
                service_required="simulation" if number % 4 else "comfyui",
                worker_id=f"forge-1-worker-{number % 2}",
                started_at=ended - (number * 3 + 2) * SECOND,
                completed_at=ended,
            )
        )
