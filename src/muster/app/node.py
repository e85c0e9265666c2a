"""A node put together: settings and node file become an agent with its links, connectors and devices."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import aiohttp

from muster.agent.agent import Agent, Backends, Devices
from muster.agent.artifacts.artifacts import ArtifactCache
from muster.agent.artifacts.door import DoorRules
from muster.agent.artifacts.download import FLEET_LIMITS, Downloads
from muster.agent.artifacts.download import Limits as DownloadLimits
from muster.agent.artifacts.fetcher import FetchRules
from muster.agent.artifacts.keeper import ArtifactMeans
from muster.agent.artifacts.plan import Hub
from muster.agent.artifacts.room import DiskLimits
from muster.agent.artifacts.store import ArtifactStore
from muster.agent.config import AgentConfig, ServiceTemplate
from muster.agent.identity import choose_node_id
from muster.agent.node_file import NodeFile, load_node_file
from muster.agent.services.attach import Identify
from muster.agent.services.health import HttpHealth
from muster.app.agent_link import AgentLink, Links, open_link
from muster.app.files import open_file_link
from muster.connectors.catalog import BUILT_IN_NAMES, NODE_SECTIONS, USUAL_PORTS, identify, node_connectors
from muster.connectors.plugins import load_plugins
from muster.connectors.web_service.connector import HTTP
from muster.devices.host import PsutilHost
from muster.devices.machine_gpus import MachineGpus
from muster.devices.simulated import SimulatedGpus
from muster.domain.service import Service
from muster.ports import FileLink
from muster.settings import Settings, parse_pairs
from muster.system import SystemClock, system_rng
from muster.tls import trusting

NO_MODEL = "none"
UP_MODEL = "smollm2-135m"
_WORK_DIR = "attempts"
_STORE_DIR = "store"

Progress = Callable[[str, float | None], None]


T = TypeVar("T")


def agent_config(
    settings: Settings, file: NodeFile, services: tuple[ServiceTemplate, ...], *, control_plane: str
) -> AgentConfig:
    """Merge what the person set over what the node file says."""
    node = file.node
    gpus = _given(settings, "num_gpus", None if node.gpus is None else str(node.gpus))
    return AgentConfig(
        node_id=choose_node_id(
            settings.node_id or node.id or "", settings.machine_id, settings.instance_id, socket.gethostname()
        ),
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
        num_gpus="auto" if gpus == "auto" else int(gpus),
        worker_slots=_given(settings, "worker_slots", node.worker_slots),
        attach=(*node.attached, *_web_services(file), *parse_pairs(settings.attach, "attach")),
        discover=_given(settings, "discover", node.discover),
        ignored_ports=frozenset(port for _, port in settings.listen_addresses),
        services=(*file.services, *services),
        models=node.models,
        commands=file.commands,
        stop_timeout_s=settings.stop_timeout_s,
    )


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


def artifact_means(
    settings: Settings, session: aiohttp.ClientSession, outside: aiohttp.ClientSession, progress: Progress
) -> ArtifactMeans:
    clock = SystemClock()
    address = settings.artifact_address
    return ArtifactMeans(
        store=ArtifactStore(settings.artifact_path / _STORE_DIR, clock),
        sources=Downloads(outside, DownloadLimits(), clock, system_rng()),
        nodes=Downloads(session, FLEET_LIMITS, clock, system_rng()),
        rules=FetchRules(
            hub=Hub(url=settings.hub_url, token=settings.hub_token),
            wait_for_fleet_s=settings.artifact_wait_for_fleet_s,
        ),
        disk=DiskLimits(
            disk_bytes_max=settings.artifact_disk_bytes_max, free_bytes_min=settings.artifact_free_bytes_min
        ),
        door=None
        if address is None
        else DoorRules(
            host=address[0],
            port=address[1],
            uploads_max=settings.artifact_uploads_max,
            bytes_per_s_max=settings.artifact_upload_bytes_per_s_max,
        ),
        progress=progress,
    )


def _outside_session(settings: Settings) -> aiohttp.ClientSession:
    """Return what leads out of the fleet: by the proxy that the environment names, trusting whom the settings name."""
    trusted = trusting(settings.ca_file) if settings.ca_file else True
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted), trust_env=True)


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
        self._session: aiohttp.ClientSession | None = None
        self._outside: aiohttp.ClientSession | None = None
        self._gpus = MachineGpus()
        self._link: AgentLink | None = None
        self.agent: Agent | None = None

    async def start(self) -> None:
        """Return once the node is ready; what failed on the way is on its record, with the reason."""
        settings = self._settings
        file = load_node_file(settings.node_path, NODE_SECTIONS) if settings.node_path else NodeFile()
        self._session = session = aiohttp.ClientSession()
        self._outside = outside = _outside_session(settings)

        async def identify_at(url: str) -> Service | None:
            return await identify(session, url)

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
        shutil.rmtree(work_dir, ignore_errors=True)  # what attempts left behind when we were killed
        found = node_connectors(session, system_rng(), file.sections, load_plugins(BUILT_IN_NAMES), work_dir)
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
        for session in (self._session, self._outside):
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
        if file.services or file.node.attach or settings.attach:
            return None
        own = {port for _, port in settings.listen_addresses}
        for port in set(USUAL_PORTS.values()) - own if settings.discover else ():
            found = await identify_at(f"http://127.0.0.1:{port}")
            if found is not None and found.dialects:
                self._progress(f"found {found.connector} at port {port}: no model server of our own is needed", None)
                return None
        return model
