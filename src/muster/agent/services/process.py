"""A service as processes of its own: started by the keeper, or taken over from the agent before us."""

import signal
from collections.abc import Sequence
from pathlib import Path

from muster.agent.services.keeping import KeeperClient, Kept, Order


class ServiceProcess:
    def __init__(self, keeper: KeeperClient, kept: Kept) -> None:
        self._keeper = keeper
        self._kept = kept

    @classmethod
    async def spawn(cls, keeper: KeeperClient, order: Order) -> "ServiceProcess":
        """Raise OSError when it cannot be started."""
        return cls(keeper, await keeper.spawn(order))

    @property
    def pid(self) -> int:
        return self._kept.pid

    @property
    def cgroup(self) -> Path | None:
        """Where it was put; None where that failed."""
        return None if self._kept.cgroup is None or self._kept.cgroup_problem else Path(self._kept.cgroup)

    @property
    def cgroup_problem(self) -> str | None:
        return self._kept.cgroup_problem

    async def ended(self) -> str:
        """Wait until all of it is gone; return how it ended, in words."""
        end = await self._keeper.ended(self._kept.name)
        if end.with_keeper:
            return "it was ended with its keeper, which somebody killed"
        if end.oom_kills:
            return "the kernel ended it for using more memory than its limit allows"
        if end.code is None:
            return f"it hangs in the kernel (pids {', '.join(map(str, end.left))})"
        if end.code < 0:
            return f"it was ended by {signal.Signals(-end.code).name}"
        return f"it exited with code {end.code}"

    async def stop(self, timeout_s: float) -> None:
        await self._keeper.stop(self._kept.name, timeout_s)


def command_problem(error: OSError, command: Sequence[str]) -> str:
    if isinstance(error, FileNotFoundError) and error.filename == command[0]:
        return f"there is no command {command[0]!r} on this machine"
    return f"{command[0]!r} cannot be started: {error}"
