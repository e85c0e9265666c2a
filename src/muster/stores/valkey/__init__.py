"""The store on Valkey (or Redis from 7.0 on): jobs, node records, the event log and the bus.

What has to be atomic is a Lua script under `lua/`; `lua/lib/base.lua` describes every key.
"""

from muster.clock import Clock
from muster.stores import rules
from muster.stores.valkey.batches import ValkeyBatches
from muster.stores.valkey.bus import ValkeyBus
from muster.stores.valkey.commands import ValkeyCommands
from muster.stores.valkey.index import ValkeyIndex
from muster.stores.valkey.leases import ValkeyLeases
from muster.stores.valkey.lines import ValkeyLines
from muster.stores.valkey.log import ValkeyLog
from muster.stores.valkey.matchmaker import Matchmaker
from muster.stores.valkey.nodes import ValkeyNodes
from muster.stores.valkey.probe import ValkeyProbe
from muster.stores.valkey.queue import ValkeyQueue
from muster.stores.valkey.schedules import ValkeySchedules
from muster.stores.valkey.server import Server
from muster.stores.valkey.streams import ValkeyStreams
from muster.stores.valkey.tokens import ValkeyTokens
from muster.stores.valkey.upkeep import ValkeyUpkeep
from muster.stores.valkey.usage import ValkeyUsage
from muster.stores.valkey.webhooks import ValkeyWebhooks


class ValkeyJobs(ValkeyQueue, ValkeyIndex, ValkeyUpkeep, ValkeyLines):
    """The four faces of the one job store."""

    def __init__(self, server: Server, *, result_bytes_max: int, class_keep_s: float) -> None:
        matchmaker = Matchmaker(server)
        ValkeyQueue.__init__(self, server, matchmaker, result_bytes_max=result_bytes_max)
        ValkeyIndex.__init__(self, server)
        ValkeyUpkeep.__init__(self, server, class_keep_s=class_keep_s)
        ValkeyLines.__init__(self, server, matchmaker)


class ValkeyStore:
    """`jobs` is JobQueue, JobIndex, JobUpkeep and JobLines in one; the others are one port each."""

    def __init__(self, server: Server, *, result_bytes_max: int, class_keep_s: float, commands_ended_max: int) -> None:
        self.server = server
        self.jobs = ValkeyJobs(server, result_bytes_max=result_bytes_max, class_keep_s=class_keep_s)
        self.nodes = ValkeyNodes(server)
        self.leases = ValkeyLeases(server)
        self.commands = ValkeyCommands(server, ended_max=commands_ended_max)
        self.tokens = ValkeyTokens(server)
        self.usage = ValkeyUsage(server)
        self.schedules = ValkeySchedules(server)
        self.streams = ValkeyStreams(server)
        self.webhooks = ValkeyWebhooks(server)
        self.batches = ValkeyBatches(server)
        self.log = ValkeyLog(server)
        self.bus = ValkeyBus(server)
        self.probe = ValkeyProbe(server)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        prefix: str = "muster",
        clock: Clock | None = None,
        call_timeout_s: float = 5.0,
        avoid_s: float = rules.AVOID_S,
        class_keep_s: float = rules.CLASS_KEEP_S,
        result_bytes_max: int = rules.RESULT_BYTES_MAX,
        event_log_entries_max: int = rules.EVENT_LOG_ENTRIES_MAX,
        commands_ended_max: int = rules.COMMANDS_ENDED_MAX,
    ) -> "ValkeyStore":
        """Connect to valkey://, redis://, rediss:// or unix:// and make sure that somebody answers.

        Without a `clock` the server's own is the time of leases, so that control planes need not agree about it.
        Raises SetupError for a URL that does not fit or a server that is too old, StoreUnavailable when nobody answers.
        """
        server = Server(
            url,
            prefix=prefix,
            clock=clock,
            call_timeout_s=call_timeout_s,
            event_log_entries_max=event_log_entries_max,
            avoid_s=avoid_s,
        )
        store = cls(
            server,
            result_bytes_max=result_bytes_max,
            class_keep_s=class_keep_s,
            commands_ended_max=commands_ended_max,
        )
        try:
            await server.prepare()
        except BaseException:
            await store.close()
            raise
        return store

    async def ping(self) -> None:
        await self.server.execute("PING")

    async def close(self) -> None:
        self.server.close()
