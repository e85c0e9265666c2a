"""All connectors, and which of them fits what answers at an address. A new connector is a module and a line here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import aiohttp
from msgspec import Struct

from muster.clock import Rng
from muster.connectors.comfyui.connector import ComfyUIConnector
from muster.connectors.engine import Engine, EngineLimits
from muster.connectors.llamacpp.connector import LlamaCppConnector
from muster.connectors.ollama import OllamaConnector
from muster.connectors.openai import OpenAIConnector, base_url
from muster.connectors.plugins import Plugins
from muster.connectors.program.config import Program
from muster.connectors.program.connector import ProgramConnector, ProgramRules
from muster.connectors.simulation import SimulationConnector
from muster.connectors.vllm import VllmConnector
from muster.connectors.web_service.config import WebService
from muster.connectors.web_service.connector import WebServiceConnector, WebServiceRules
from muster.domain.service import Service
from muster.errors import MusterError
from muster.ports import Connector, JobKind

# Those that ask the most of a server before they take it for their own come first.
_OF_SERVERS: tuple[type[OpenAIConnector], ...] = (OllamaConnector, LlamaCppConnector, VllmConnector, OpenAIConnector)

# Where a server of each kind listens unless it was told otherwise.
USUAL_PORTS: Mapping[str, int] = {"ollama": 11434, "llamacpp": 8080, "vllm": 8000, "comfyui": 8188}

# Tables of the node's file that name services and programs of connectors.
NODE_SECTIONS: Mapping[str, type[Struct]] = {"http": WebService, "program": Program}

_BUILT_IN: tuple[type[Any], ...] = (
    SimulationConnector,
    *_OF_SERVERS,
    ComfyUIConnector,
    WebServiceRules,
    ProgramRules,
)
BUILT_IN_NAMES = tuple(kind.name for kind in _BUILT_IN)


class NodeConnectors(Struct, frozen=True, kw_only=True):
    """What one node can use. `broken` says of others, by name, why not."""

    connectors: Mapping[str, Connector]
    broken: Mapping[str, str]


def job_kinds(plugins: Plugins | None = None) -> tuple[JobKind, ...]:
    """Return what a control plane checks and shows, by the very classes that run the jobs."""
    kinds = (*_BUILT_IN, *(plugins.kinds.values() if plugins else ()))
    return tuple(
        JobKind(name=kind.name, provides=kind.provides, check=kind.check, schema=kind.schema()) for kind in kinds
    )


def all_connectors(
    session: aiohttp.ClientSession, rng: Rng, limits: EngineLimits | None = None
) -> dict[str, Connector]:
    """Return those that need nothing of the node's file."""
    connectors: list[Connector] = [
        SimulationConnector(rng),
        *(kind(session, limits) for kind in _OF_SERVERS),
        ComfyUIConnector(session),
    ]
    return {connector.name: connector for connector in connectors}


def node_connectors(
    session: aiohttp.ClientSession,
    rng: Rng,
    sections: Mapping[str, Sequence[Struct]],
    plugins: Plugins,
    work_dir: Path,
) -> NodeConnectors:
    """Raise SetupError where the node's file says what cannot be."""
    work_dir.mkdir(parents=True, exist_ok=True)
    connectors, broken = all_connectors(session, rng), dict(plugins.broken)
    connectors[ComfyUIConnector.name] = ComfyUIConnector(session, work_dir=work_dir)
    for service in cast("Sequence[WebService]", sections.get("http", ())):
        web = WebServiceConnector(session, service)
        connectors[web.name] = web
    for entry in cast("Sequence[Program]", sections.get("program", ())):
        program = ProgramConnector(entry, work_dir)
        if program.missing is None:
            connectors[program.name] = program
        else:
            broken[program.name] = f"{program.name} is not offered: {program.missing}"
    for name, kind in plugins.kinds.items():
        try:
            connectors[name] = kind(session)
        except Exception as error:  # noqa: BLE001 - foreign code
            broken[name] = f"the connector {name} cannot be made: {type(error).__name__}: {error}"
    return NodeConnectors(connectors=connectors, broken=broken)


async def identify(session: aiohttp.ClientSession, url: str, limits: EngineLimits | None = None) -> Service | None:
    """Say which server answers at `url`; None when none does. A port alone proves nothing."""
    base = base_url(url)
    try:
        await Engine(session, limits).look(f"{base}/v1/models")
    except MusterError:
        return None  # silent: no need to ask for each kind
    for kind in (*_OF_SERVERS[:-1], ComfyUIConnector, OpenAIConnector):
        connector = kind(session) if kind is ComfyUIConnector else cast("type[OpenAIConnector]", kind)(session, limits)
        try:
            service = await connector.probe(base)
        except MusterError:
            continue
        if service.models or kind is not OpenAIConnector:  # an empty list may be anybody's
            return service
    return None
