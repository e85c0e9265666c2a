"""Which nodes and jobs are listed, and in which order. What is unknown comes last, whichever way it is sorted."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from muster.cli.top.lines import Row
from muster.cli.top.picture import Picture
from muster.domain.job import JobStatus
from muster.domain.node import Health

Value = float | str | None

_WORST_FIRST = [Health.DEAD, Health.STALE, Health.UNHEALTHY, Health.DEGRADED, Health.REGISTERING, Health.HEALTHY]
_BUSIEST_FIRST = [
    JobStatus.IN_PROGRESS,
    JobStatus.ASSIGNED,
    JobStatus.UNWORKABLE,
    JobStatus.PENDING,
    JobStatus.FAILED,
    JobStatus.TIMEOUT,
    JobStatus.CANCELLED,
    JobStatus.COMPLETED,
]


class Load(NamedTuple):
    """The GPUs of one node together; None where not a single one could be read."""

    utilization: float | None  # 0 to 1, the mean
    memory: float | None  # 0 to 1, of all that is known
    temperature_c: float | None  # the hottest
    power_w: float | None


def load_of(machine: Row) -> Load:
    gpus = machine["gpus"]
    busy = [gpu["utilization_percent"] for gpu in gpus if gpu["utilization_percent"] is not None]
    held = [
        (gpu["memory_used_mb"], gpu["memory_total_mb"])
        for gpu in gpus
        if gpu["memory_used_mb"] is not None and gpu["memory_total_mb"]
    ]
    heat = [gpu["temperature_c"] for gpu in gpus if gpu["temperature_c"] is not None]
    power = [gpu["power_w"] for gpu in gpus if gpu["power_w"] is not None]
    return Load(
        utilization=sum(busy) / len(busy) / 100 if busy else None,
        memory=sum(used for used, _ in held) / sum(total for _, total in held) if held else None,
        temperature_c=max(heat, default=None),
        power_w=sum(power) if power else None,
    )


def busy_share(workers: Sequence[Row]) -> float | None:
    return sum(worker["status"] == "busy" for worker in workers) / len(workers) if workers else None


class Sort(NamedTuple):
    name: str  # of the column that it goes by
    value: Callable[[Row, Picture], Value]
    falling: bool = False
    in_full: bool = False  # what it goes by is not in a line


def _rank(order: Sequence[str], word: str) -> float:
    return order.index(word) if word in order else len(order)


NODE_SORTS = (
    Sort("node", lambda machine, _: machine["machine_id"]),
    Sort("health", lambda machine, _: _rank(_WORST_FIRST, machine["health_status"])),
    Sort("util", lambda machine, _: load_of(machine).utilization, falling=True),
    Sort("vram", lambda machine, _: load_of(machine).memory, falling=True),
    Sort("temp", lambda machine, _: load_of(machine).temperature_c, falling=True, in_full=True),
    Sort("power", lambda machine, _: load_of(machine).power_w, falling=True, in_full=True),
    Sort("busy", lambda machine, picture: busy_share(picture.workers.get(machine["machine_id"], ())), falling=True),
    Sort("heard", lambda machine, _: machine["last_seen"], in_full=True),
)
JOB_SORTS = (
    Sort("status", lambda job, _: _rank(_BUSIEST_FIRST, job["status"])),
    Sort("age", lambda job, _: job["created_at"]),
    Sort("queue", lambda job, _: job["service_required"]),
    Sort("priority", lambda job, _: job["priority"], falling=True),
    Sort("job", lambda job, _: job["job_id"]),
)


def nodes(picture: Picture, words: str, sort: Sort, *, turned: bool) -> list[Row]:
    found = (machine for machine in picture.machines.values() if _fits(words, _node_text, machine))
    return _ordered(found, "machine_id", sort, picture, turned=turned)


def jobs(picture: Picture, words: str, sort: Sort, *, turned: bool) -> list[Row]:
    found = (job for job in picture.jobs.values() if _fits(words, _job_text, job))
    return _ordered(found, "job_id", sort, picture, turned=turned)


def _ordered(found: Iterable[Row], id_field: str, sort: Sort, picture: Picture, *, turned: bool) -> list[Row]:
    valued = [(sort.value(row, picture), row) for row in sorted(found, key=lambda row: str(row[id_field]))]
    known = [(value, row) for value, row in valued if value is not None]
    known.sort(key=lambda entry: entry[0], reverse=sort.falling is not turned)
    return [row for _, row in known] + [row for value, row in valued if value is None]


def _fits(words: str, text_of: Callable[[Row], str], row: Row) -> bool:
    if not words.strip():
        return True
    text = text_of(row).lower()
    return all(word in text for word in words.lower().split())


def _node_text(machine: Row) -> str:
    labels: Mapping[str, str] = machine["labels"]
    return " ".join(
        str(part)
        for part in (
            machine["machine_id"],
            machine["hostname"],
            machine["health_status"],
            "draining" if machine["draining"] else machine["phase"],
            "late" if machine["late"] else "",
            machine["pool"],
            machine["gpu_model"],
            *(f"{name}={value}" for name, value in labels.items()),
            *machine["services"],
            *machine["models"],
        )
        if part
    )


def _job_text(job: Row) -> str:
    fields = ("job_id", "service_required", "status", "worker_id", "customer_id", "workflow_id")
    return " ".join(str(job[name]) for name in fields if job.get(name))
