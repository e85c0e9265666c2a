"""The GPUs of this node: what was found when it came up, with the figures of now and whether each is fit for work."""

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from muster.agent.gpus.owners import Services, TraceProcess, Traces, join_owners, trace_process
from muster.agent.gpus.watch import GpuWatch
from muster.clock import Clock
from muster.domain.gpu import Gpu, GpuFault
from muster.domain.service import Service
from muster.errors import MusterError, UpstreamTimeout
from muster.ports import GpuProbe

SimulatedGpus = Callable[[int], GpuProbe]
Tell = Callable[..., None]  # an event: its kind, and its data by name

_READ_DEADLINE_S = 6.0  # probes keep a shorter one; this is for a probe that does not
_FRESH_S = 6.0  # who cannot wait for new figures gets those of so long ago at most
_FIRST_READ_DEADLINE_S = 30.0  # a driver that is set up may wake every card


class GpuReading(Struct, frozen=True):
    gpus: tuple[Gpu, ...]
    problem: str | None = None

    @property
    def out_of_service(self) -> frozenset[int]:
        return frozenset(gpu.index for gpu in self.gpus if gpu.out_of_service is not None)


class Gpus:
    """`wanted` is how many this node must have; None: as many as are found."""

    def __init__(
        self,
        probe: GpuProbe,
        simulated: SimulatedGpus,
        wanted: int | None,
        clock: Clock,
        tell: Tell,
        services: Callable[[], Sequence[Service]],
        trace: TraceProcess = trace_process,
    ) -> None:
        self._probe = probe
        self._simulated = simulated
        self._wanted = wanted
        self._clock = clock
        self._tell = tell
        self._services = services
        self._traces = Traces(trace)
        self._stand_in: GpuProbe | None = None
        self._inventory: dict[int, Gpu] = {}
        self._watches: dict[int, GpuWatch] = {}
        self._found: int | None = None  # real ones, as last told
        self._out: dict[int, str] = {}
        self._reading: asyncio.Task[tuple[Gpu, ...]] | None = None
        self._read: tuple[Gpu, ...] = ()
        self._read_s = -math.inf

    @property
    def inventory(self) -> tuple[Gpu, ...]:
        return tuple(self._inventory.values())

    @property
    def cuda_names(self) -> dict[int, str]:
        """Name all by uuid where a card is split: CUDA does not number its instances as we do."""
        split = any(gpu.parent is not None for gpu in self.inventory)
        return {gpu.index: gpu.uuid for gpu in self.inventory if split and gpu.uuid is not None}

    async def take_stock(self) -> None:
        """Learn what is there; where none is, the wanted are simulated. More or fewer than wanted is an event."""
        real = await self._figures(self._probe, _FIRST_READ_DEADLINE_S)
        found = real
        if self._wanted and not real:
            self._stand_in = self._simulated(self._wanted)
            found = await self._figures(self._stand_in, _FIRST_READ_DEADLINE_S)
        self._inventory = {gpu.index: gpu for gpu in found[: self._wanted]}
        self._watches = {index: GpuWatch() for index in self._inventory}
        for index, gpu in self._inventory.items():
            self._watches[index].see(gpu, self._clock.monotonic_s())
        self._found = len(real)
        if self._wanted not in {None, len(real)}:
            self._tell_count(self._wanted)

    async def read(self, patience_s: float = _READ_DEADLINE_S) -> GpuReading:
        """Return every GPU of the inventory; a figure that cannot be read now is None, not that of before.

        A reading that takes longer than `patience_s` goes on, and its figures are there for the next one who asks.
        """
        problem, now = None, self._silent()
        try:
            real = await self._recent(patience_s)
            self._count(real)
            now = real if self._stand_in is None else await self._figures(self._stand_in, _READ_DEADLINE_S)
        except MusterError as error:
            if self._inventory:  # else it could not be read from the start, and that is told already
                problem = f"the GPUs cannot be read: {error.message}"
        found = self._matched(now)
        services = Services(self._services())
        self._traces.look_for(frozenset(services.by_port))
        gpus = tuple(self._judged(gpu, found.get(gpu.index), services) for gpu in self.inventory)
        self._traces.forget_others()
        self._tell_changes(gpus)
        return GpuReading(gpus, "; ".join(_complaints(gpus, problem)) or None)

    async def _recent(self, patience_s: float) -> tuple[Gpu, ...]:
        """Read, or join who reads already; when that takes too long, return what was read a little while ago."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._figures(self._probe, _READ_DEADLINE_S), name="gpus")
            self._reading.add_done_callback(_look_at)
        reading = self._reading
        await asyncio.wait([reading], timeout=min(patience_s, _READ_DEADLINE_S))
        now_s = self._clock.monotonic_s()
        if reading.done():
            if self._reading is reading:
                self._reading = None
            self._read, self._read_s = reading.result(), now_s
        elif now_s - self._read_s > _FRESH_S:
            raise UpstreamTimeout(f"no figures within {patience_s:g} s")
        return self._read

    async def _figures(self, probe: GpuProbe, deadline_s: float) -> tuple[Gpu, ...]:
        try:
            async with asyncio.timeout(deadline_s):
                return await probe.read()
        except TimeoutError:
            raise UpstreamTimeout(f"no figures within {deadline_s:g} s") from None

    def _silent(self) -> tuple[Gpu, ...]:
        return tuple(gpu.without_figures(GpuFault.SILENT) for gpu in self.inventory)

    def _matched(self, now: tuple[Gpu, ...]) -> dict[int, Gpu]:
        """Find each GPU of the inventory again: when one is gone, the numbers of those behind it may shift."""
        by_uuid = {gpu.uuid: gpu for gpu in now if gpu.uuid is not None}
        by_index = {gpu.index: gpu for gpu in now}
        found = {}
        for index, known in self._inventory.items():
            gpu = by_uuid.get(known.uuid) if known.uuid in by_uuid else by_index.get(index)
            if gpu is not None and (known.uuid is None or gpu.uuid in {None, known.uuid}):
                found[index] = replace(gpu, index=index)
        return found

    def _judged(self, known: Gpu, gpu: Gpu | None, services: Services) -> Gpu:
        why = self._watches[known.index].see(gpu, self._clock.monotonic_s())
        if gpu is None or gpu.fault is not None:
            return replace(known.without_figures(None if gpu is None else gpu.fault), out_of_service=why)
        owners = None if gpu.owners is None else join_owners(gpu.owners, services, self._traces.of)
        return replace(gpu, owners=owners, out_of_service=why)

    # --- events ------------------------------------------------------------------------------------------------------

    def _count(self, real: tuple[Gpu, ...]) -> None:
        """Tell of what comes or goes while we run; it is used, or no longer missed, after a restart of the agent."""
        if len(real) != self._found:
            self._found = len(real)
            self._tell_count(len(self._inventory) if self._wanted is None else self._wanted)

    def _tell_count(self, wanted: int | None) -> None:
        simulated = sum(gpu.simulated for gpu in self.inventory)
        self._tell(
            "gpu_count_mismatch", wanted=wanted, found=self._found, used=len(self._inventory), simulated=simulated
        )

    def _tell_changes(self, gpus: tuple[Gpu, ...]) -> None:
        for gpu in gpus:
            before, why = self._out.get(gpu.index), gpu.out_of_service
            data: dict[str, Any] = {"gpu": gpu.index, "name": gpu.name, "uuid": gpu.uuid}
            if why is not None and why != before:
                self._tell("gpu_out_of_service", **data, reason=why)
                self._out[gpu.index] = why
            elif why is None and before is not None:
                self._tell("gpu_in_service", **data, after=before)
                del self._out[gpu.index]


def _look_at(reading: asyncio.Task[tuple[Gpu, ...]]) -> None:
    """Have its error seen: it may be that nobody asks any more."""
    if not reading.cancelled():
        reading.exception()


def _complaints(gpus: Sequence[Gpu], problem: str | None) -> Iterator[str]:
    if problem is not None:
        yield problem
    for gpu in gpus:
        if gpu.out_of_service is not None:
            yield f"GPU {gpu.index} is out of service: {gpu.out_of_service}"
        elif gpu.fault is not None and problem is None:
            yield f"GPU {gpu.index} cannot be read"
