"""A node put together: settings and node file become an agent with its links, connectors and devices."""

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, TypeVar

import aiohttp

from muster.agent.agent import Agent, Backends, Devices
from muster.agent.artifacts.artifacts import ArtifactCache
from muster.agent.config import AgentConfig, BasicMachine, ServiceTemplate
from muster.agent.identity import choose_node_id
from muster.agent.jobs.traced import TRACEPARENT
from muster.agent.node_file import NodeFile, load_node_file
from muster.agent.profiles import basic_machine
from muster.agent.report.hive import Send
from muster.agent.services.attach import Identify
from muster.agent.services.health import HttpHealth
from muster.app.agent_link import AgentLink, Links, open_link
from muster.app.artifacts import artifact_means, outside_session
from muster.app.file_link import open_file_link
from muster.app.logs import agent_log
from muster.app.process import Progress
from muster.app.tracing import OtelTracer, open_tracer
from muster.connectors.catalog import BUILT_IN_NAMES, NODE_SECTIONS, USUAL_PORTS, identify, node_connectors
from muster.connectors.plugins import load_plugins
from muster.connectors.web_service.connector import HTTP
from muster.devices.host import PsutilHost
from muster.devices.machine_gpus import MachineGpus
from muster.devices.simulated import SimulatedGpus
from muster.domain.service import Service
from muster.ids import NodeId
from muster.links.http.queen import HttpQueen
from muster.logs.own import speak_as, spoken_about
from muster.ports import FileLink
from muster.settings import Settings, parse_pairs
from muster.system import SystemClock, system_rng
from muster.tls import trusting

NO_MODEL = "none"
UP_MODEL = "smollm2-135m"
_WORK_DIR = "attempts"

T = TypeVar("T")


def agent_config(
    settings: Settings, file: NodeFile, services: tuple[ServiceTemplate, ...], *, control_plane: str
) -> AgentConfig:
    """Merge what the person set over what the node file says."""
    node = file.node
    profile = profile_of(settings)
    gpus = _num_gpus(settings, file, profile)
    of_profile = basic_machine.templates(profile, settings.data_path) if profile else ()
    return AgentConfig(
        node_id=_node_id(settings, file),
        control_plane=control_plane,
        node_type=settings.node_type or node.node_type,
        address=settings.address or node.address,
        instance_id=settings.instance_id or None,
        nebula_ip=settings.nebula_ip or None,
        public_ip=settings.public_ip or None,
        region=settings.region or node.region,
        az=settings.az or node.az,
        pool=settings.pool or node.pool,
        labels=node.labels | dict(parse_pairs(settings.labels, "labels")),
        customers=node.customers,
        heartbeat_interval_s=_given(settings, "heartbeat_interval_s", node.heartbeat_interval_s),
        queen_interval_s=settings.queen_interval_s,
        num_gpus=gpus,
        worker_slots=_given(settings, "worker_slots", node.worker_slots),
        attach=(*node.attached, *_web_services(file), *parse_pairs(settings.attach, "attach")),
        discover=profile is None and _given(settings, "discover", node.discover),  # a profile says all that it has
        ignored_ports=frozenset(port for _, port in settings.listen_addresses),
        services=(*file.services, *services, *of_profile),
        profile=profile,
        model_policy=file.models.policy if file.models else None,
        owner=file.owner,
        models=node.models,
        commands=file.commands,
        stop_timeout_s=settings.stop_timeout_s,
        adopt_within_s=settings.adopt_within_s,
        cgroup_root=settings.cgroup_root,
        limits_required=settings.limits_required,
    )


def check_machine(settings: Settings) -> NodeId:
    """Return the id of the machine that the profile describes; SetupError when there cannot be such a one."""
    file = _node_file(settings)
    _num_gpus(settings, file, profile_of(settings))
    return _node_id(settings, file)


def _node_file(settings: Settings) -> NodeFile:
    return load_node_file(settings.node_path, NODE_SECTIONS) if settings.node_path else NodeFile()


def _node_id(settings: Settings, file: NodeFile) -> NodeId:
    return choose_node_id(
        settings.node_id or file.node.id or "",
        settings.machine_id,
        settings.instance_id,
        basic_machine.NAME if settings.profile else socket.gethostname(),
    )


def profile_of(settings: Settings) -> BasicMachine | None:
    if not settings.profile:
        return None
    return BasicMachine(
        comfyui_port=settings.comfyui_port,
        simulation_port=settings.simulation_port,
        process_list_port=settings.process_list_port,
    )


def _num_gpus(settings: Settings, file: NodeFile, profile: BasicMachine | None) -> int | Literal["auto"]:
    gpus = _given(settings, "num_gpus", None if file.node.gpus is None else str(file.node.gpus))
    if profile is None:
        return "auto" if gpus == "auto" else int(gpus)
    count = basic_machine.GPUS if gpus == "auto" else int(gpus)
    basic_machine.check_gpus(count)
    return count


def _given(settings: Settings, name: str, from_file: T | None) -> T:
    """Return a setting, or what the node file says where the person left the default."""
    value: T = getattr(settings, name)
    return from_file if from_file is not None and value == getattr(Settings(), name) else value


def _web_services(file: NodeFile) -> list[tuple[str, str]]:
    """Return the services of `[[http]]` as what is attached: (connector, url)."""
    return [(f"{HTTP}:{service.name}", service.url) for service in file.sections.get(HTTP, ())]


def model_service(settings: Settings, model: str) -> ServiceTemplate:
    """llama.cpp's server for one model; `muster.connectors.llamacpp.serve` says what the words mean."""
    return ServiceTemplate(
        name="llama",
        connector="llamacpp",
        command=(
            "{python}",
            "-m",
            "muster.connectors.llamacpp.serve",
            "--host",
            "{host}",
            "--port",
            "{port}",
            "--model",
            f"{{model:{model}}}",
            "--slots",
            str(settings.model_slots),
            "--ctx-per-slot",
            str(settings.model_context_tokens),
        ),
        slots=settings.model_slots,
    )


def passing_on() -> aiohttp.TraceConfig:
    """Have requests that an attempt makes say to which trace they belong."""

    async def begun(_: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestStartParams) -> None:
        traceparent = TRACEPARENT.get()
        if traceparent is not None:
            request.headers["traceparent"] = traceparent

    config = aiohttp.TraceConfig()
    config.on_request_start.append(begun)
    return config


def _correlating() -> aiohttp.TraceConfig:
    """Let each request that is made for a job say for which, whatever connector makes it."""

    async def mark(_: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestStartParams) -> None:
        if (correlation_id := spoken_about().get("correlation_id")) is not None:
            request.headers.setdefault("X-Correlation-Id", correlation_id)

    tracing = aiohttp.TraceConfig()
    tracing.on_request_start.append(mark)
    return tracing


class LocalNode:
    """A Lifecycle: the agent of this machine. `links` are those of this process; None: as the settings say."""

    def __init__(
        self,
        settings: Settings,
        progress: Progress,
        links: Links | None = None,
        *,
        files: FileLink | None = None,
        default_model: str = NO_MODEL,
    ) -> None:
        self._settings = settings
        self._progress = progress
        self._links = links
        self._files = files
        self._default_model = default_model
        self._session: aiohttp.ClientSession | None = None  # to the control plane
        self._services: aiohttp.ClientSession | None = None
        self._tracer: OtelTracer | None = None
        self._outside: aiohttp.ClientSession | None = None
        self._gpus = MachineGpus()
        self._link: AgentLink | None = None
        self.agent: Agent | None = None

    async def start(self) -> None:
        """Return once the node is ready; what failed on the way is on its record, with the reason."""
        settings = self._settings
        file = _node_file(settings)
        speak_as(agent_log(settings))
        self._session = session = aiohttp.ClientSession()
        self._services = services = aiohttp.ClientSession(trace_configs=[passing_on(), _correlating()])
        self._tracer = tracer = open_tracer(settings, "agent")
        self._outside = outside = outside_session(settings)

        async def identify_at(url: str) -> Service | None:
            return await identify(services, url)

        model = await self._model_to_serve(file, identify_at)
        config = agent_config(
            settings,
            file,
            (model_service(settings, model),) if model else (),
            control_plane="" if self._links else _given(settings, "control_plane", file.node.control_plane),
        )
        link = self._links or await self._open_link(config, session)
        files = self._files or open_file_link(settings, config.node_id, config.control_plane, session)
        work_dir = settings.data_path / _WORK_DIR
        found = node_connectors(services, system_rng(), file.sections, load_plugins(BUILT_IN_NAMES), work_dir)
        cache = ArtifactCache(settings.artifact_path)
        self.agent = Agent(
            config,
            link,
            link,
            Devices(gpus=self._gpus, simulated_gpus=SimulatedGpus, host=PsutilHost(settings.data_path)),
            Backends(
                connectors=found.connectors,
                broken_connectors=found.broken,
                identify=identify_at,
                usual_ports=USUAL_PORTS,
                check_health=HttpHealth(session).check,
                fetch_model=lambda name: self._fetch(cache, name),
                artifacts=artifact_means(settings, session, outside, self._progress),
                files=files,
                tracer=tracer,
                tell_queen=self._queen(session),
                work_dir=work_dir,
            ),
            SystemClock(),
            system_rng(),
            settings.data_path,
        )
        await self.agent.start()

    async def stop(self) -> None:
        if self.agent is not None:
            await self.agent.stop()
        await self._gpus.close()
        if self._link is not None:
            await self._link.stop()
        if self._tracer is not None:
            await self._tracer.stop()
        for session in (self._session, self._services, self._outside):
            if session is not None:
                await session.close()

    @property
    def models(self) -> list[str]:
        """Names of the models that one can chat with now."""
        services = self.agent.services if self.agent else ()
        return [model.name for service in services if service.dialects for model in service.models]

    async def told_to_stop(self) -> None:
        """Wait until the control plane says so."""
        if self.agent is not None:
            await self.agent.stop_requested()

    def _queen(self, session: aiohttp.ClientSession) -> Send | None:
        url = self._settings.queen_url
        tls = trusting(self._settings.ca_file) if url.startswith("https:") else None
        return HttpQueen(url, session, self._settings.queen_token, tls=tls).send if url else None

    async def _open_link(self, config: AgentConfig, session: aiohttp.ClientSession) -> AgentLink:
        interval_s = config.heartbeat_interval_s
        self._link = open_link(
            self._settings, config.node_id, config.control_plane, session, interval_s, self._link_opened
        )
        await self._link.start()
        return self._link

    def _link_opened(self) -> None:
        """Be heard at once: while the link was closed the node may have been taken for gone."""
        if self.agent is not None:
            self.agent.hurry()

    async def _fetch(self, cache: ArtifactCache, model: str) -> Path:
        def tell(done_bytes: int, total_bytes: int) -> None:
            self._progress(f"fetching {model}", done_bytes / total_bytes if total_bytes else None)

        return (await cache.fetch(model, tell)).path

    async def _model_to_serve(self, file: NodeFile, identify_at: Identify) -> str | None:
        """Return the model asked for; without one the default, unless this machine already has a server of its own."""
        settings = self._settings
        model = settings.model or self._default_model
        if model == NO_MODEL:
            return None
        if settings.model:
            return model
        if settings.profile or file.services or file.node.attach or settings.attach:
            return None
        own = {port for _, port in settings.listen_addresses}
        for port in set(USUAL_PORTS.values()) - own if settings.discover else ():
            found = await identify_at(f"http://127.0.0.1:{port}")
            if found is not None and found.dialects:
                self._progress(f"found {found.connector} at port {port}: no model server of our own is needed", None)
                return None
        return model
