"""A ComfyUI server that runs already, or that the node's file starts."""

from pathlib import Path
from typing import Any

import aiohttp
from msgspec import Struct, field

from muster.connectors.comfyui.payload import ComfyPayload, read_job
from muster.connectors.comfyui.run import ComfyRun
from muster.connectors.comfyui.server import ComfyLimits, ComfyServer
from muster.connectors.engine import Engine, refusal
from muster.connectors.payload import Checked
from muster.domain.job import ClaimedJob
from muster.domain.model import Model
from muster.domain.service import Service, ServiceStatus
from muster.errors import UpstreamFailed
from muster.ports import JobFiles, ReportProgress

_OK = 200


class _System(Struct):
    comfyui_version: str | None = None
    python_version: str | None = None


class _Device(Struct):
    type: str
    vram_total: int | None = None
    vram_free: int | None = None


class _Stats(Struct):
    """`/system_stats`: what nothing but ComfyUI answers."""

    system: _System
    devices: list[_Device]


class _ExecInfo(Struct):
    queue_remaining: int


class _Prompt(Struct):
    exec_info: _ExecInfo = field(default_factory=lambda: _ExecInfo(0))


class ComfyUIConnector(Checked):
    name = "comfyui"
    provides = ("comfyui",)
    needs_service = True
    payload = ComfyPayload

    def __init__(
        self, session: aiohttp.ClientSession, limits: ComfyLimits | None = None, work_dir: Path | None = None
    ) -> None:
        """`work_dir` is where files are on their way; None: where the system keeps such."""
        self._session = session
        self._work_dir = work_dir
        self._limits = limits or ComfyLimits()
        self._engine = Engine(session)

    @classmethod
    def check(cls, payload: Any) -> None:
        read_job(payload)

    async def probe(self, url: str) -> Service:
        base = url.rstrip("/")
        stats = await self._engine.read(f"{base}/system_stats", _Stats)
        busy = await self._engine.read(f"{base}/prompt", _Prompt)
        return Service(
            name=self.name,
            connector=self.name,
            status=ServiceStatus.RUNNING,
            url=base,
            models=await self._models(base),
            slots=1,
            slots_busy=min(1, busy.exec_info.queue_remaining),
            memory_total_bytes=_sum(device.vram_total for device in stats.devices),
            memory_free_bytes=_sum(device.vram_free for device in stats.devices),
        )

    async def run(self, job: ClaimedJob, service: Service | None, report: ReportProgress, files: JobFiles) -> Any:
        asked = read_job(job.spec.payload)
        if service is None or service.url is None:
            raise UpstreamFailed("no ComfyUI runs here at present")
        server = ComfyServer(self._session, service.url.rstrip("/"), self._limits)
        return await ComfyRun(server, self._limits, job, asked, report, files).run(self._work_dir)

    async def free_memory(self, service: Service) -> None:
        body = {"unload_models": True, "free_memory": True}
        look = await self._engine.look(f"{(service.url or '').rstrip('/')}/free", body)
        if look.status != _OK:
            raise refusal(look.status, look.value)

    async def _models(self, base: str) -> tuple[Model, ...]:
        """Return its checkpoints; older versions have no list of them."""
        look = await self._engine.look(f"{base}/models/checkpoints")
        names = look.value if look.status == _OK and isinstance(look.value, list) else []
        return tuple(Model(name=name, capabilities=("image",)) for name in names if isinstance(name, str))


def _sum(figures: Any) -> int | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) if known else None
