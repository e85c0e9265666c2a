"""The machine below us: real time, real chance, and child processes that do not outlive us."""

import ctypes
import gc
import os
import random
import signal
import sys
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_SECRET = frozenset({"RABBITMQ_URL", "REDIS_URL"})  # older names of settings that hold a password


# Nearly all that is made here are messages, which go when nobody refers to them any more. With Python's own settings
# the search for cycles, of which there are few, takes a seventh of what a heartbeat costs.
_GC_THRESHOLDS = (20_000, 20, 50)


def search_for_cycles_seldom() -> None:
    gc.set_threshold(*_GC_THRESHOLDS)


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    monotonic_s = staticmethod(time.monotonic)  # asked several times for every request: no layer of ours between


def system_rng() -> random.Random:
    return random.SystemRandom()


def own_environment() -> dict[str, str]:
    """Return our environment without our own settings, the token among them: they are no business of a child."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_") and name not in _SECRET}


def die_with_parent(sig: signal.Signals = signal.SIGKILL) -> Callable[[], None] | None:
    """Return a `preexec_fn` by which the kernel signals the child when its parent dies; None off Linux.

    The tie is to the *thread* that spawns (prctl(2), PR_SET_PDEATHSIG), so spawn from the main thread.
    """
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork: the child may not import
    parent = os.getpid()

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the tie was made
            os.kill(os.getpid(), sig)

    return tie
