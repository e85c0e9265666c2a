"""A control plane that notes what reaches it and answers as told."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Raw

from muster.domain.artifact import Artifact, NodeArtifacts
from muster.domain.capability import Capability
from muster.domain.command import Command, CommandStatus
from muster.domain.event import Event
from muster.domain.gpu import Gpu
from muster.domain.job import ClaimedJob, Hardware, JobError, JobSpec, Progress, Requirements
from muster.domain.model import Model
from muster.domain.node import Health, NodeFacts, Phase, Resources
from muster.domain.process import ProcessFigures
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.ids import CommandId, JobId, NodeId, SessionId, WorkerId
from muster.wire import (
    AgentEvents,
    ArtifactHolder,
    ArtifactQuery,
    ArtifactReply,
    ClaimReply,
    ClaimRequest,
    CloseSession,
    CommandBatch,
    CommandPoll,
    CommandReport,
    CommandReports,
    Deregistration,
    Heartbeat,
    HeartbeatReply,
    Join,
    Joined,
    LogChunk,
    LogChunkReply,
    OpenSession,
    Outcome,
    OutcomeKind,
    ProgressReport,
    ProgressReports,
    Registration,
    RegistrationReply,
    RenewReply,
    RenewRequest,
    SessionReply,
)

NODE = NodeId("gpu-1")
WORKER = WorkerId("gpu-1-worker-0")
SESSION = SessionId("session-a")
FACTS = NodeFacts(node_id=NODE, node_type="gpu-worker", labels={"zone": "a"}, nebula_ip="10.1.0.7", cpu_cores=8)
JOB = JobSpec(
    job_id=JobId("job-1"),
    service_required="chat",
    payload={"messages": [{"role": "user", "content": "¿qué?"}], "n": 1},
    requirements=Requirements(models=("m",), hardware=Hardware(gpu_memory_gb=16), custom={"tier": ["gold"]}),
)
RESULT = Raw(b'{"text":"\xc3\xa9"}')
HALF = Progress(fraction=0.5, message="half")


class NotingPlane:
    """A NodeLink and a JobLink."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.reply: Any = None
        self.error: BaseException | None = None
        self.hold: Callable[[], Awaitable[Any]] | None = None

    async def _take(self, message: Any) -> Any:
        self.heard.append(message)
        if self.hold is not None:
            await self.hold()
        if self.error is not None:
            raise self.error
        return self.reply

    async def register(self, message: Registration) -> RegistrationReply:
        reply: RegistrationReply = await self._take(message)
        return reply

    async def heartbeat(self, message: Heartbeat) -> HeartbeatReply:
        reply: HeartbeatReply = await self._take(message)
        return reply

    async def report_events(self, message: AgentEvents) -> None:
        await self._take(message)

    async def deregister(self, message: Deregistration) -> None:
        await self._take(message)

    async def next_commands(self, message: CommandPoll) -> CommandBatch:
        reply: CommandBatch = await self._take(message)
        return reply

    async def report_commands(self, message: CommandReports) -> None:
        await self._take(message)

    async def tell_logs(self, message: LogChunk) -> LogChunkReply:
        reply: LogChunkReply = await self._take(message)
        return reply

    async def find_artifacts(self, message: ArtifactQuery) -> ArtifactReply:
        reply: ArtifactReply = await self._take(message)
        return reply

    async def join(self, message: Join) -> Joined:
        reply: Joined = await self._take(message)
        return reply

    async def open_session(self, message: OpenSession) -> SessionReply:
        reply: SessionReply = await self._take(message)
        return reply

    async def claim(self, message: ClaimRequest) -> ClaimReply:
        reply: ClaimReply = await self._take(message)
        return reply

    async def renew(self, message: RenewRequest) -> RenewReply:
        reply: RenewReply = await self._take(message)
        return reply

    async def report_progress(self, message: ProgressReports) -> RenewReply:
        reply: RenewReply = await self._take(message)
        return reply

    async def close_session(self, message: CloseSession) -> None:
        await self._take(message)


# Of each call: the method, a message with every kind of field in use, and a reply.
EXCHANGES: list[tuple[str, Any, Any]] = [
    (
        "register",
        Registration(facts=FACTS, boot_id="boot-a", heartbeat_interval_s=2.5, phase=Phase.CONFIGURING),
        RegistrationReply(node_id=NODE, next_heartbeat_ms=2500),
    ),
    (
        "heartbeat",
        Heartbeat(
            facts=FACTS,
            boot_id="boot-a",
            seq=7,
            heartbeat_interval_s=2.5,
            status=Health.DEGRADED,
            reason="llama failed",
            resources=Resources(memory_total_mb=64_000, cpu_percent=3.5),
            gpus=(Gpu(index=0, name="RTX 4090", memory_total_mb=24_564, utilization_percent=None),),
            processes=(ProcessFigures(name="llama-gpu0", group="llama", pid=41, cpu_percent=87.5, rss_mb=300.5),),
            workers=(Worker(worker_id=WORKER, index=0, status=WorkerStatus.BUSY, current_jobs=(JobId("job-1"),)),),
            services=(
                Service(
                    name="llama-gpu0",
                    connector="llamacpp",
                    status=ServiceStatus.RUNNING,
                    dialects=(Dialect.OPENAI,),
                    models=(Model(name="m", resident=True),),
                    slots=4,
                ),
            ),
            draining=True,
            artifacts=NodeArtifacts(
                kept=(Artifact(name="hf:o/r", digest="ab", services=("llama-gpu0",), pinned=True),),
                url="http://10.0.0.1:7000",
                ticket_key="key",
            ),
        ),
        HeartbeatReply(next_heartbeat_ms=2500, known=False, draining=True),
    ),
    (
        "report_events",
        AgentEvents(node_id=NODE, events=(Event(kind="step_done", key=NODE, at_ms=5, data={"took_ms": 3}),)),
        None,
    ),
    ("deregister", Deregistration(node_id=NODE, boot_id="boot-a", reason="shutdown"), None),
    (
        "next_commands",
        CommandPoll(node_id=NODE, boot_id="boot-a", wait_s=1.0),
        CommandBatch(
            commands=(Command(command_id=CommandId("command-2"), node_id=NODE, command="drain", args={"why": "x"}),)
        ),
    ),
    (
        "report_commands",
        CommandReports(
            node_id=NODE,
            reports=(CommandReport(command_id=CommandId("command-2"), status=CommandStatus.DONE, result={"n": 1}),),
        ),
        None,
    ),
    (
        "find_artifacts",
        ArtifactQuery(node_id=NODE, name="hf:o/r", digest="ab", fetches=True, kept=("cd",)),
        ArtifactReply(
            holders=(ArtifactHolder(node_id=NODE, url="http://10.0.0.1:7000", ticket="t", digest="ab", size_bytes=7),),
            fetching=(NODE,),
            in_pool=("cd",),
            elsewhere=("ef",),
        ),
    ),
    (
        "open_session",
        OpenSession(
            node_id=NODE,
            worker_id=WORKER,
            session_id=SESSION,
            capability=Capability(services=("chat",), models=("m",), gpu_memory_gb=24.0, custom={"tier": ["gold"]}),
            slots=4,
        ),
        SessionReply(lease_s=15.0, renew_every_s=2.5),
    ),
    (
        "claim",
        ClaimRequest(
            session_id=SESSION,
            worker_id=WORKER,
            want=3,
            done=(
                Outcome(job_id=JobId("job-0"), attempt=1, kind=OutcomeKind.COMPLETED, result=RESULT),
                Outcome(
                    job_id=JobId("job-2"),
                    attempt=2,
                    kind=OutcomeKind.FAILED,
                    error=JobError(code="upstream_failed", message="gone", retriable=False),
                ),
            ),
        ),
        ClaimReply(jobs=(ClaimedJob(spec=JOB, attempt=1, deadline_ms=9_000),), refused=(JobId("job-2"),)),
    ),
    (
        "renew",
        RenewRequest(session_id=SESSION, worker_id=WORKER, held=((JobId("job-1"), 1), (JobId("job-3"), 2))),
        RenewReply(lost=(JobId("job-3"),), session_known=False),
    ),
    (
        "report_progress",
        ProgressReports(
            session_id=SESSION,
            reports=(ProgressReport(job_id=JobId("job-1"), attempt=1, progress=HALF),),
        ),
        RenewReply(lost=(JobId("job-1"),)),
    ),
    ("close_session", CloseSession(session_id=SESSION, worker_id=WORKER), None),
]  # fmt: skip
