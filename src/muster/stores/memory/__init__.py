"""The store in memory: the twin that tests and the simulator use, simple enough to be obviously right.

Nothing outlives the process, and nothing suspends but reading the log with a wait, and the bus.
"""

from muster.clock import Clock
from muster.stores import rules
from muster.stores.memory.batches import MemoryBatches
from muster.stores.memory.bus import MemoryBus
from muster.stores.memory.commands import MemoryCommands
from muster.stores.memory.jobs import MemoryJobs
from muster.stores.memory.leases import MemoryLeases
from muster.stores.memory.log import MemoryLog
from muster.stores.memory.nodes import MemoryNodes
from muster.stores.memory.probe import MemoryProbe
from muster.stores.memory.schedules import MemorySchedules
from muster.stores.memory.streams import MemoryStreams
from muster.stores.memory.tokens import MemoryTokens
from muster.stores.memory.usage import MemoryUsage
from muster.stores.memory.webhooks import MemoryWebhooks


class MemoryStore:
    """`jobs` is JobQueue, JobIndex and JobUpkeep in one; `nodes`, `tokens`, `log` and `bus` are the other ports."""

    def __init__(
        self,
        clock: Clock,
        *,
        avoid_s: float = rules.AVOID_S,
        class_keep_s: float = rules.CLASS_KEEP_S,
        result_bytes_max: int = rules.RESULT_BYTES_MAX,
        event_log_entries_max: int = rules.EVENT_LOG_ENTRIES_MAX,
        commands_ended_max: int = rules.COMMANDS_ENDED_MAX,
    ) -> None:
        self.bus = MemoryBus()
        self.log = MemoryLog(event_log_entries_max)
        self.probe = MemoryProbe(self.log)
        self.nodes = MemoryNodes()
        self.leases = MemoryLeases(clock)
        self.tokens = MemoryTokens()
        self.usage = MemoryUsage()
        self.schedules = MemorySchedules()
        self.streams = MemoryStreams(clock)
        self.webhooks = MemoryWebhooks()
        self.batches = MemoryBatches()
        self.commands = MemoryCommands(commands_ended_max)
        self.jobs = MemoryJobs(
            clock,
            self.log,
            self.bus,
            avoid_s=avoid_s,
            class_keep_s=class_keep_s,
            result_bytes_max=result_bytes_max,
        )

    async def ping(self) -> None:
        """Do as a store does that can be away: nothing to reach here."""

    async def close(self) -> None:
        """Do as a store does that has connections: nothing to give back here."""
