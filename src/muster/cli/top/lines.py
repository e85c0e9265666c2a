"""A node of a large fleet of which there is only a line: a row like any other, with what a line leaves out unknown."""

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]

BUSY = "busy"
NOT_BUSY = "not busy"

_MB_PER_GB = 1024
_USUAL: Row = {
    "draining": False,
    "late": False,
    "hostname": None,
    "pool": None,
    "link": "",
    "labels": {},
    "services": (),
    "models": (),
    "gpu_count": 0,
    "gpu_names": (),
    "gpu_percent": None,
    "gpu_memory_used_gb": None,
    "gpu_memory_total_gb": None,
    "workers": 0,
    "workers_busy": 0,
}


def is_line(machine: Row) -> bool:
    return "gpu_percent" in machine


def machine_of(line: Row) -> Row:
    """Return it as a machine, all of its GPUs told as one."""
    whole = {**_USUAL, **line}
    names = whole["gpu_names"]
    together = {
        "utilization_percent": whole["gpu_percent"],
        "memory_used_mb": _megabytes(whole["gpu_memory_used_gb"]),
        "memory_total_mb": _megabytes(whole["gpu_memory_total_gb"]),
        "temperature_c": None,
        "power_w": None,
    }
    return whole | {
        "phase": whole["status"],
        "gpu_model": names[0] if names else None,
        "gpus": [together] if whole["gpu_count"] else [],
        "last_seen": None,
        "reason": None,
    }


def workers_of(line: Row) -> list[Row]:
    """Return its workers: those that are not busy may be anything else."""
    count, busy = line.get("workers", 0), line.get("workers_busy", 0)
    return [_of(BUSY)] * busy + [_of(NOT_BUSY)] * (count - busy)


def _of(status: str) -> Row:
    return {"status": status, "current_jobs": ()}


def _megabytes(gigabytes: int | None) -> int | None:
    return None if gigabytes is None else gigabytes * _MB_PER_GB
