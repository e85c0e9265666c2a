"""Batches put together: who takes them, who does them, and whom they give way to."""

from collections.abc import Callable, Mapping

from muster.batches.lines import SERVICE
from muster.clock import Clock, Rng
from muster.control.batches.background import Background
from muster.control.batches.runner import BatchRunner
from muster.control.batches.service import BatchDesk
from muster.control.files import FileService
from muster.control.fleet.gateway_load import GatewayLoad
from muster.control.jobs.service import JobService, PayloadCheck
from muster.settings import Settings
from muster.stores.valkey import ValkeyStore


class Batches:
    """A Lifecycle."""

    def __init__(
        self,
        settings: Settings,
        store: ValkeyStore,
        jobs: JobService,
        files: FileService,
        clock: Clock,
        rng: Rng,
        *,
        load: GatewayLoad,
        background: Background,
        checks: Mapping[str, PayloadCheck],
        leads: Callable[[], bool],
    ) -> None:
        self._load = load
        self.desk = BatchDesk(store.batches, files, store.bus, clock, rng)
        self._runner = BatchRunner(
            store.batches,
            store.log,
            store.bus,
            jobs,
            files,
            clock,
            room=background.room,
            check=checks.get(SERVICE, lambda _: None),
            payload_bytes_max=settings.job_payload_bytes_max,
            retention_s=settings.batch_file_retention_s,
            leads=leads,
        )

    async def start(self) -> None:
        await self._load.start()
        await self._runner.start()

    async def stop(self) -> None:
        await self._runner.stop()
        await self._load.stop()
