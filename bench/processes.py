"""What a process and its children use, seen from outside."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress

import psutil

_STOP_S = 4.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tree(process: psutil.Process) -> Iterator[psutil.Process]:
    yield process
    with suppress(psutil.Error):
        yield from process.children(recursive=True)


def cpu_of_tree(process: psutil.Process) -> float:
    seconds = 0.0
    for one in tree(process):
        with suppress(psutil.Error):
            times = one.cpu_times()
            seconds += times.user + times.system
    return seconds


def memory_mb_of_tree(process: psutil.Process) -> float:
    """Sum up what each has, pages that several share divided among them."""
    found = 0.0
    for one in tree(process):
        with suppress(psutil.Error):
            found += one.memory_full_info().pss / 2**20
    return found


def stop_tree(process: psutil.Process, sig: signal.Signals) -> None:
    """End a process that leads a session of its own, with all in it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, sig)
    with suppress(psutil.TimeoutExpired):
        process.wait(_STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
