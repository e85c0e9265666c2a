"""The Muster that runs on a data directory: what it wrote about itself, believed only while its process lives."""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

STATE_FILE = "muster.json"
_LOOK_EVERY_S = 0.02
_LOOKS_AT_ENDED = 200  # four seconds, in which its parent may let go of it
_STARTED_TOLERANCE_MS = 2000  # the kernel's start time of a process is coarser than the clock


class Running(Struct, frozen=True):
    """What `muster up` and `muster server` write once they listen."""

    pid: int
    urls: Sequence[str]
    started_at_ms: int
    version: str
    log: str | None = None
    grpc: str | None = None  # where agents' gRPC links end
    store: str | None = None
    store_pid: int | None = None  # of the embedded one
    event_log: str | None = None

    @property
    def url(self) -> str:
        return self.urls[0]


def find_running(data_dir: Path) -> Running | None:
    """Return the Muster of this data directory; None when there is none, or its state file is a leftover."""
    try:
        running = msgspec.json.decode((data_dir / STATE_FILE).read_bytes(), type=Running)
    except (OSError, msgspec.DecodeError):
        return None
    return running if running.urls and process_of(running) else None


def process_of(running: Running) -> psutil.Process | None:
    """Return its process, unless the pid now belongs to something else."""
    try:
        process = psutil.Process(running.pid)
        is_older = process.create_time() * 1000 <= running.started_at_ms + _STARTED_TOLERANCE_MS
        is_ours = any("muster" in argument for argument in process.cmdline())
        is_alive = process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if is_older and is_ours and is_alive else None


def ends_within(process: psutil.Process, timeout_s: float) -> bool:
    """Wait for its end; one whose parent does not ask how it ended has ended as well."""
    deadline = time.monotonic() + timeout_s
    seen_ended = 0
    while time.monotonic() < deadline and seen_ended < _LOOKS_AT_ENDED:
        try:
            if not process.is_running():
                return True
            seen_ended += process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        time.sleep(_LOOK_EVERY_S)
    return seen_ended > 0
