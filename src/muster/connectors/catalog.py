"""All connectors, and which of them fits what answers at an address. A new connector is a module and a line here."""

from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from muster.clock import Rng
from muster.connectors.engine import Engine, EngineLimits
from muster.connectors.llamacpp.connector import LlamaCppConnector
from muster.connectors.ollama import OllamaConnector
from muster.connectors.openai import OpenAIConnector, base_url
from muster.connectors.simulation import SimulationConnector
from muster.connectors.vllm import VllmConnector
from muster.domain.service import Service
from muster.errors import MusterError
from muster.ports import Connector

# Those that ask the most of a server before they take it for their own come first.
_OF_SERVERS: tuple[type[OpenAIConnector], ...] = (OllamaConnector, LlamaCppConnector, VllmConnector, OpenAIConnector)

# Where a server of each kind listens unless it was told otherwise.
USUAL_PORTS: Mapping[str, int] = {"ollama": 11434, "llamacpp": 8080, "vllm": 8000}

# By the service that a job asks for: what a submit can refuse without a server at hand.
PAYLOAD_CHECKS: Mapping[str, Callable[[Any], None]] = {
    SimulationConnector.name: SimulationConnector.check,
    **{kind.name: kind.check for kind in _OF_SERVERS},
}


def all_connectors(
    session: aiohttp.ClientSession, rng: Rng, limits: EngineLimits | None = None
) -> dict[str, Connector]:
    connectors: list[Connector] = [SimulationConnector(rng), *(kind(session, limits) for kind in _OF_SERVERS)]
    return {connector.name: connector for connector in connectors}


async def identify(session: aiohttp.ClientSession, url: str, limits: EngineLimits | None = None) -> Service | None:
    """Say which model server answers at `url`; None when none does. A port alone proves nothing."""
    base = base_url(url)
    try:
        await Engine(session, limits).look(f"{base}/v1/models")
    except MusterError:
        return None  # silent: no need to ask for each kind
    for kind in _OF_SERVERS:
        try:
            service = await kind(session, limits).probe(base)
        except MusterError:
            continue
        if service.models or kind is not OpenAIConnector:  # an empty list may be anybody's
            return service
    return None
