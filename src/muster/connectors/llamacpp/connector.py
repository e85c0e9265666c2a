"""llama.cpp's server: OpenAI's API, and besides its slots and the facts of its model."""

import asyncio
from pathlib import PurePosixPath
from typing import Any

import aiohttp
from msgspec import Struct, field

from muster.connectors.engine import EngineLimits, error_text, refusal
from muster.connectors.openai import OpenAIConnector, base_url
from muster.domain.model import Model
from muster.domain.service import Service, ServiceStatus
from muster.errors import Conflict, MusterError

_OK = 200
_NO_ROUTER = frozenset({404, 405, 501})
_NOT_IMPLEMENTED = 501
_UNAVAILABLE = 503
_SERVER = "llama.cpp"
_UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))


class _Generation(Struct):
    n_ctx: int | None = None


class _Modalities(Struct):
    vision: bool = False


class _Template(Struct):
    supports_tools: bool = False


class _Props(Struct):
    total_slots: int
    default_generation_settings: _Generation = field(default_factory=_Generation)
    modalities: _Modalities = field(default_factory=_Modalities)
    chat_template_caps: _Template = field(default_factory=_Template)
    is_sleeping: bool = False


class _Meta(Struct):
    n_params: int | None = None
    size: int | None = None
    n_ctx_train: int | None = None
    ftype: str | None = None


class _Entry(Struct):
    id: str
    meta: _Meta | None = None


class _Listing(Struct):
    data: list[_Entry]


class _Slot(Struct):
    is_processing: bool


class LlamaCppConnector(OpenAIConnector):
    name = "llamacpp"
    provides = ("llamacpp", "openai")

    def __init__(self, session: aiohttp.ClientSession, limits: EngineLimits | None = None) -> None:
        super().__init__(session, limits)
        self._embeds: dict[str, bool] = {}  # by address: it lasts as long as the server does

    async def _state(self, base: str) -> Service:
        health = await self._engine.look(f"{base}/health")
        if health.status == _UNAVAILABLE and health.server == _SERVER:
            self._embeds.pop(base, None)
            return self._service(base, status=ServiceStatus.STARTING)
        props, listing = await asyncio.gather(
            self._engine.read(f"{base}/props", _Props), self._engine.read(f"{base}/v1/models", _Listing)
        )
        capabilities = await self._capabilities(base, props)
        load = await self._load(base)
        return self._service(
            base,
            models=tuple(_model(entry, props, capabilities) for entry in listing.data),
            slots=props.total_slots,
            slots_busy=None if props.is_sleeping else await self._slots_busy(base),
            requests_waiting=load.waiting,
        )

    async def unload_model(self, service: Service, model: str) -> dict[str, Any]:
        """Have a router let go of a model; a server of one model keeps it for as long as it runs."""
        look = await self._engine.look(f"{base_url(service.url or '')}/models/unload", {"model": model})
        if look.status in _NO_ROUTER:
            raise Conflict(f"{service.name} has one model and keeps it while it runs: restart or stop the service")
        if look.status != _OK:
            raise refusal(look.status, look.value)
        return {"model": model, "service": service.name}

    def _forget(self, base: str) -> None:
        super()._forget(base)
        self._embeds.pop(base, None)

    async def _slots_busy(self, base: str) -> int | None:
        """Return None when the server keeps its slots to itself (`--no-slots`, a key)."""
        try:
            slots = await self._engine.read(f"{base}/slots", list[_Slot])
        except MusterError:
            return None
        return sum(slot.is_processing for slot in slots)

    async def _capabilities(self, base: str, props: _Props) -> tuple[str, ...]:
        if base not in self._embeds and not props.is_sleeping:  # a look at its embeddings would wake it
            self._embeds[base] = await self._embeds_at(base)
        flags = {
            "embedding": self._embeds.get(base, False),
            "vision": props.modalities.vision,
            "tools": props.chat_template_caps.supports_tools,
        }
        return ("completion", *(name for name, offered in flags.items() if offered))

    async def _embeds_at(self, base: str) -> bool:
        """Ask for an embedding of nothing: the server says that it cannot embed before it says what is missing."""
        look = await self._engine.look(f"{base}/v1/embeddings", body={})
        return look.status != _NOT_IMPLEMENTED and "ooling type" not in (error_text(look.value) or "")


def _model(entry: _Entry, props: _Props, capabilities: tuple[str, ...]) -> Model:
    meta = entry.meta or _Meta()
    return Model(
        name=model_name(entry.id),
        resident=not props.is_sleeping,
        size_bytes=meta.size,
        parameter_size=None if meta.n_params is None else parameter_size(meta.n_params),
        quantization=(meta.ftype or "").removeprefix("all ") or None,
        context_length=props.default_generation_settings.n_ctx or meta.n_ctx_train,
        capabilities=capabilities,
    )


def model_name(served: str) -> str:
    """Shorten a file's path to its stem: without `--alias` that path is what the server calls its model."""
    return PurePosixPath(served).stem if served.endswith(".gguf") else served


def parameter_size(parameters: int) -> str:
    """Return 134515008 as `135M`, 7615616512 as `7.62B`."""
    for factor, unit in _UNITS:
        if parameters >= factor:
            return f"{parameters / factor:.3g}{unit}"
    return str(parameters)
