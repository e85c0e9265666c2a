"""A small fleet in the middle of its day, over the real queue and gateway: what the documents show."""

import math
from collections.abc import Callable
from typing import Any
from zlib import crc32

from msgspec import Struct, structs

from muster.api.state import GatewayFigures
from muster.domain.artifact import Artifact, ArtifactState, NodeArtifacts
from muster.domain.capability import Capability
from muster.domain.gpu import Gpu, GpuOwner
from muster.domain.job import JobError, JobSpec, Progress, Requirements, encode_result
from muster.domain.model import Model
from muster.domain.node import Health, NodeFacts, Resources
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.gateway.figures.course import EVERY_S, Point
from muster.gateway.figures.usage import GatewayView
from muster.ids import JobId, NodeId, SessionId, worker_id
from muster.wire import ClaimRequest, OpenSession, Outcome, OutcomeKind, ProgressReport, ProgressReports
from tests.integration.api.conftest import Served

_GB = 1024**3
_MORNING_S = 1_795_165_200.0
_BEATS = 90  # a quarter of an hour
_ASKED = 40
_POINTS = 180
_IN_FLIGHT = {"atlas/vllm": 5, "spot-1/llamacpp": 2, "laptop-mira/ollama": 1}
_LEASE_S = 8.0  # moved on by less than a lease while jobs run
SHOWN_NODE = "forge-1"


class Kind(Struct, frozen=True):
    """A node as it is made; `service` serves `models`."""

    node: str
    pool: str
    card: str
    card_mb: int
    cards: int
    service: str
    models: tuple[str, ...]
    cores: int = 32
    memory_mb: int = 131_072
    health: Health = Health.HEALTHY
    reason: str | None = None
    draining: bool = False


_IMAGES = ("flux1-dev", "sd_xl_base_1.0")
_RTX = "NVIDIA GeForce RTX 4090"
_FLEET = (
    Kind("atlas", "llm", "NVIDIA A100-SXM4-80GB", 81_920, 4, "vllm", ("qwen3:32b", "gemma3:27b"), 128, 1_031_000),
    Kind("forge-1", "images", _RTX, 24_564, 2, "comfyui", _IMAGES),
    Kind("forge-2", "images", _RTX, 24_564, 2, "comfyui", _IMAGES, draining=True),
    Kind(
        "garage",
        "images",
        "NVIDIA GeForce RTX 3090",
        24_576,
        2,
        "comfyui",
        _IMAGES[1:],
        16,
        65_536,
        Health.DEGRADED,
        "comfyui-gpu1 fails to start: port 8189 is held by python (pid 4121)",
    ),
    Kind("laptop-mira", "llm", "NVIDIA RTX A2000", 8_192, 1, "ollama", ("llama3.2:3b",), 10, 32_768),
    Kind("spot-1", "llm", "NVIDIA L4", 23_034, 1, "llamacpp", ("llama3.2:3b", "nomic-embed-text"), 8, 32_768),
)
_SIZES_GB = {
    "qwen3:32b": 20,
    "gemma3:27b": 17,
    "flux1-dev": 23,
    "sd_xl_base_1.0": 7,
    "llama3.2:3b": 2,
    "nomic-embed-text": 0.3,
}


_PAYLOADS: dict[str, Callable[[int], dict[str, Any]]] = {
    "simulation": lambda number: {"duration_ms": 4_000 + 100 * number, "steps": 20},
    "comfyui": lambda number: {
        "prompt": {
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd_xl_base_1.0"}},
            "2": {
                "class_type": "CLIPTextEncode",
                "inputs": {"text": f"a lighthouse at dusk, {number}", "clip": ["1", 1]},
            },
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
        }
    },
}


class Lively:
    def __init__(self, served: Served, engine_url: str) -> None:
        self._plane = served.plane
        self._client = served.client
        self._engine_url = engine_url
        self._running: dict[str, tuple[JobId, ...]] = {}
        self._seq = 0
        self.shown_job = JobId("")

    async def begin(self) -> None:
        self._plane.clock.advance(_MORNING_S)
        for beat in range(_BEATS):
            self._plane.clock.advance(10)
            await self._beat(beat)
        await self._work()
        self._plane.clock.advance(_LEASE_S)
        await self._beat(_BEATS)
        await self._ask()
        asked = self._plane.gateway_view
        self._plane.gateway_view = lambda: _as_if_for_long(asked(), self._plane.clock.now_ms())
        self._plane.gateway_figures = lambda: GatewayFigures(in_flight=sum(_IN_FLIGHT.values()), requests_total=18_204)

    # --- nodes -------------------------------------------------------------------------------------------------------

    async def _beat(self, beat: int) -> None:
        self._seq += 1
        for kind in _FLEET:
            await self._beat_of(kind, beat)

    async def _beat_of(self, kind: Kind, beat: int) -> None:
        node = NodeId(kind.node)
        beat += crc32(kind.node.encode()) % 100  # not all alike
        jobs = self._running.get(kind.node, ())
        await self._plane.heartbeat(
            node,
            seq=self._seq,
            facts=NodeFacts(
                node_id=node,
                node_type="gpu-worker",
                hostname=f"{kind.node}.lan",
                pool=kind.pool,
                labels={"rack": "b4"},
                version="0.1.0",
                platform="Linux 6.1, x86_64",
                cpu_cores=kind.cores,
            ),
            status=kind.health,
            reason=kind.reason,
            draining=kind.draining,
            resources=Resources(
                memory_total_mb=kind.memory_mb,
                memory_used_mb=round(kind.memory_mb * _wave(beat, 0.25, 0.5, 31)),
                cpu_percent=round(100 * _wave(beat, 0.1, 0.6, 17), 1),
                disk_total_mb=2_000_000,
                disk_free_mb=810_000,
            ),
            gpus=tuple(self._gpu(kind, index, beat, jobs) for index in range(kind.cards)),
            workers=tuple(_worker(kind, index, jobs) for index in range(kind.cards)),
            services=tuple(self._services(kind)),
            artifacts=NodeArtifacts(kept=tuple(_kept(name) for name in kind.models)),
        )

    def _gpu(self, kind: Kind, index: int, beat: int, jobs: tuple[JobId, ...]) -> Gpu:
        busy = self._seq <= _BEATS or index < len(jobs)
        use = _wave(beat + 7 * index, 0.55, 1.0, 23) if busy else 0.02
        memory_mb = round(kind.card_mb * (0.6 + 0.3 * use))
        owner = GpuOwner(name=_name_of(kind, index), pids=(4_100 + index,), memory_mb=memory_mb - 600, service=True)
        return Gpu(
            index=index,
            name=kind.card,
            memory_total_mb=kind.card_mb,
            memory_used_mb=memory_mb,
            utilization_percent=round(100 * use),
            temperature_c=round(38 + 36 * use),
            power_w=round(60 + 320 * use),
            owners=(owner,),
        )

    def _services(self, kind: Kind) -> list[Service]:
        models = tuple(
            Model(name=name, resident=place == 0, size_bytes=round(_SIZES_GB[name] * _GB))
            for place, name in enumerate(kind.models)
        )
        if kind.service == "comfyui":
            return [
                Service(
                    name=_name_of(kind, index),
                    connector="comfyui",
                    status=ServiceStatus.FAILED if kind.reason and index else ServiceStatus.RUNNING,
                    error="port 8189 is already in use" if kind.reason and index else None,
                    models=models,
                    managed=True,
                    gpu_index=index,
                )
                for index in range(kind.cards)
            ]
        return [
            Service(
                name=kind.service,
                connector=kind.service,
                status=ServiceStatus.RUNNING,
                url=self._engine_url,
                dialects=(Dialect.OPENAI,),
                models=models,
                slots=8,
                slots_busy=len(self._running.get(kind.node, ())),
                managed=kind.service == "llamacpp",
            )
        ]

    # --- jobs --------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Have some ended, one of them badly, some under way, and the rest waiting."""
        for number in range(26):
            await self._submit("comfyui", number)
        for number in range(8):
            await self._submit("simulation", number)
        await self._submit("comfyui", 99, requirements=Requirements(models=("hunyuan-video",)), priority=90)
        for kind in _FLEET:
            await self._open(kind)
        for kind in (_FLEET[1], _FLEET[2], _FLEET[3]):
            ended = await self._claim(kind, 3)
            self._plane.clock.advance(4)
            failed = ended[-1] if kind.reason else None
            await self._claim(kind, 0, tuple(_outcome(job, failed) for job in ended))
        for number in range(6):
            await self._submit("simulation", 20 + number, customer_id="acme")
        for place, kind in enumerate((*_FLEET[:3], _FLEET[5])):
            self._running[kind.node] = jobs = await self._claim(kind, min(kind.cards, 2))
            for job in jobs:
                await self._progress(kind, job, 0.23 + 0.19 * place)
        (self.shown_job, *_) = self._running[SHOWN_NODE]

    async def _submit(self, need: str, number: int, **fields: Any) -> None:
        payload = _PAYLOADS[need](number)
        spec = JobSpec(
            job_id=JobId(""),
            service_required=need,
            payload=payload,
            max_retries=0,
            **{"priority": 50 + number % 3 * 10} | fields,
        )
        await self._plane.jobs.submit([spec])

    async def _open(self, kind: Kind) -> None:
        serves = ("comfyui",) if kind.service == "comfyui" else ("simulation",)
        await self._plane.jobs.open_session(
            OpenSession(
                node_id=NodeId(kind.node),
                worker_id=worker_id(NodeId(kind.node), 0),
                session_id=SessionId(f"{kind.node}-session"),
                capability=Capability(services=serves, models=kind.models, gpu_memory_gb=kind.card_mb / 1024),
                slots=4,
            )
        )

    async def _claim(self, kind: Kind, want: int, done: tuple[Outcome, ...] = ()) -> tuple[JobId, ...]:
        request = ClaimRequest(
            session_id=SessionId(f"{kind.node}-session"),
            worker_id=worker_id(NodeId(kind.node), 0),
            want=want,
            done=done,
        )
        return tuple(job.spec.job_id for job in (await self._plane.jobs.claim(request)).jobs)

    async def _progress(self, kind: Kind, job: JobId, fraction: float) -> None:
        steps, name = (25, "KSampler") if kind.service == "comfyui" else (20, "step")
        step = Progress(fraction=fraction, message=f"{name} {round(steps * fraction)}/{steps}")
        report = ProgressReport(job_id=job, attempt=1, progress=step)
        await self._plane.jobs.report_progress(
            ProgressReports(session_id=SessionId(f"{kind.node}-session"), reports=(report,))
        )

    # --- the gateway -------------------------------------------------------------------------------------------------

    async def _ask(self) -> None:
        names = [name for kind in _FLEET if kind.service != "comfyui" for name in kind.models]
        for number in range(_ASKED):
            said = [{"role": "user", "content": "hello"}]
            body = {"model": names[number % 7 % len(names)], "messages": said, "stream": number % 3 > 0}
            async with self._client.post("/v1/chat/completions", json=body) as answer:
                await answer.read()


def _wave(at: int, low: float, high: float, length: float) -> float:
    turn = 2 * math.pi * at / length
    return low + (high - low) * (0.5 + 0.3 * math.sin(turn) + 0.13 * math.sin(2.7 * turn) + 0.07 * math.sin(7.1 * turn))


def _as_if_for_long(view: GatewayView, now_ms: int) -> GatewayView:
    """Put a quarter of an hour before what was asked just now."""
    recent = [
        Point(
            at_ms=now_ms - round(EVERY_S * 1000) * (_POINTS - at),
            requests_per_s=_wave(at, 4, 19, 61),
            errors_per_s=0.4 if at % 47 == 0 else 0.0,
            in_flight=round(_wave(at, 2, 11, 61)),
            first_byte_p50_s=_wave(at, 0.11, 0.19, 43),
            first_byte_p95_s=_wave(at, 0.35, 0.8, 37),
        )
        for at in range(_POINTS)
    ]
    return structs.replace(view, recent=recent, stats=structs.replace(view.stats, in_flight_by_worker=_IN_FLIGHT))


def _name_of(kind: Kind, index: int) -> str:
    return f"comfyui-gpu{index}" if kind.service == "comfyui" else kind.service


def _worker(kind: Kind, index: int, jobs: tuple[JobId, ...]) -> Worker:
    mine = jobs[index : index + 1]
    broken = kind.reason is not None and index > 0
    status = WorkerStatus.ERROR if broken else WorkerStatus.BUSY if mine else WorkerStatus.IDLE
    return Worker(
        worker_id=worker_id(NodeId(kind.node), index),
        index=index,
        status=status,
        gpu_index=index,
        connectors=(kind.service,),
        connector_statuses={kind.service: "running"},
        current_jobs=mine,
        jobs_completed=118 + 31 * index,
        jobs_failed=index,
    )


def _kept(name: str) -> Artifact:
    return Artifact(
        name=name, state=ArtifactState.ON_DISK, size_bytes=round(_SIZES_GB[name] * _GB), fetched_at_ms=1_795_000_000_000
    )


def _outcome(job: JobId, failed: JobId | None) -> Outcome:
    if job == failed:
        error = JobError(code="out_of_memory", message="CUDA out of memory. Tried to allocate 4.50 GiB of 23.68 GiB.")
        return Outcome(job_id=job, attempt=1, kind=OutcomeKind.FAILED, error=error)
    return Outcome(
        job_id=job, attempt=1, kind=OutcomeKind.COMPLETED, result=encode_result({"images": ["lighthouse.png"]})
    )
