"""Chats, completions and embeddings as jobs, on any server that speaks OpenAI's API."""

import asyncio
from typing import Any, Literal, Protocol

import aiohttp
from msgspec import Struct

from muster.connectors.engine import Engine, EngineLimits, Take
from muster.connectors.engine_load import UNKNOWN, EngineLoad, read_load
from muster.connectors.openai_answer import Assembly
from muster.connectors.openai_request import PATHS, SHAPES, Kind, read_request
from muster.connectors.payload import json_schema
from muster.connectors.streamed import so_far
from muster.domain.job import ClaimedJob, Progress
from muster.domain.model import Model, canonical_model_name
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.errors import InvalidInput, ModelNotFound, MusterError, UpstreamFailed
from muster.ports import JobFiles, ReportProgress

_REPORT_EVERY_S = 0.25


class Entry(Struct):
    id: str
    owned_by: str | None = None
    max_model_len: int | None = None  # vLLM's


class Listing(Struct):
    """`/v1/models`."""

    object: Literal["list"]
    data: list[Entry]


class OpenAIConnector:
    """Knows the server's state by its list of models alone; those that know more derive from this."""

    name = "openai"
    provides: tuple[str, ...] = ("openai",)
    needs_service = True

    def __init__(self, session: aiohttp.ClientSession, limits: EngineLimits | None = None) -> None:
        self._engine = Engine(session, limits)
        self._vetted: set[str] = set()  # addresses that are no Muster, as long as they answer
        self._unmeasured: set[str] = set()  # addresses that tell no metrics, as long as they answer

    async def probe(self, url: str) -> Service:
        base = base_url(url)
        try:
            if base not in self._vetted:
                await self._refuse_muster(base)
            service = await self._state(base)
        except MusterError:
            self._forget(base)
            raise
        self._vetted.add(base)
        return service

    async def _refuse_muster(self, base: str) -> None:
        """Keep a gateway from taking itself for a model server: requests would go round in circles."""
        look = await self._engine.look(f"{base}/version")
        if isinstance(look.value, dict) and look.value.get("name") == "muster":
            raise UpstreamFailed(f"{base} is a Muster, not a model server: attach the servers behind it")

    async def _state(self, base: str) -> Service:
        listing = await self._engine.read(f"{base}/v1/models", Listing)
        load = await self._load(base)
        return self._service(
            base,
            models=tuple(read_model(entry) for entry in listing.data),
            slots_busy=load.running,
            requests_waiting=load.waiting,
        )

    async def _load(self, base: str) -> EngineLoad:
        """Return how busy it is, as far as it says so; who does not is not asked again."""
        if base in self._unmeasured:
            return UNKNOWN
        try:
            text = await self._engine.text(f"{base}/metrics")
        except MusterError:  # what it serves matters more than how busy it is
            return UNKNOWN
        load = UNKNOWN if text is None else read_load(text)
        if load == UNKNOWN:
            self._unmeasured.add(base)
        return load

    def _forget(self, base: str) -> None:
        """Something else may answer there the next time."""
        self._vetted.discard(base)
        self._unmeasured.discard(base)

    @staticmethod
    def check(payload: Any) -> None:
        read_request(payload)

    @staticmethod
    def schema() -> dict[str, Any]:
        return json_schema(*SHAPES.values())

    async def run(self, job: ClaimedJob, service: Service | None, report: ReportProgress, files: JobFiles) -> Any:  # noqa: ARG002 - the port's
        request = read_request(job.spec.payload)
        if service is None or service.url is None:
            raise UpstreamFailed(f"no {self.name} server runs here at present")
        url = base_url(service.url) + PATHS[request.kind]
        body = request.body | {"model": choose_model(request, service)}
        if request.kind is Kind.EMBEDDING:
            return await self._engine.ask(url, body)
        assembly = Assembly(request.kind)
        streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
        take = reporting(assembly, request.tokens_max, report, streamed=request.streamed)
        await self._engine.stream(url, streamed, take)
        if not assembly.finished:
            raise UpstreamFailed(f"{url} ended its answer too early, after {assembly.pieces} tokens")
        return assembly.result()

    def _service(self, url: str, **known: Any) -> Service:
        facts = {"status": ServiceStatus.RUNNING, "dialects": (Dialect.OPENAI,)} | known
        return Service(name=self.name, connector=self.name, url=url, **facts)


class Asking(Protocol):
    """A request, in whichever API."""

    @property
    def model(self) -> str | None: ...
    @property
    def kind(self) -> Kind: ...


def base_url(url: str) -> str:
    """Return the address below which `/v1` and the server's own paths lie, whichever of the two was given."""
    return url.rstrip("/").removesuffix("/v1")


def choose_model(request: Asking, service: Service) -> str:
    """Return the server's own name of the model; one that it lacks is refused, as some servers answer with another."""
    have = {canonical_model_name(model.name): model.name for model in service.models}
    if (model := request.model) is not None:
        if have and canonical_model_name(model) not in have:
            raise ModelNotFound(
                f"{service.name} does not have the model {model}; it has {', '.join(have)}",
                field="payload.model",
            )
        return have.get(canonical_model_name(model), model)
    fit = [known.name for known in service.models if request.kind.capability in known.capabilities]
    if len(fit) == 1:
        return fit[0]
    found = f"{service.name} has several: {', '.join(fit)}" if fit else f"{service.name} offers none for this"
    raise InvalidInput(f"payload.model must say which model: {found}", field="payload.model")


def read_model(entry: Entry) -> Model:
    capability = "embedding" if _embeds(entry.id) else "completion"
    return Model(name=entry.id, context_length=entry.max_model_len, capabilities=(capability,))


def _embeds(name: str) -> bool:
    """Guess by the name, for the list of models does not tell."""
    folded = name.casefold()
    return any(part in folded for part in ("embed", "bge-", "e5-", "gte-", "minilm"))


class Growing(Protocol):
    """An answer that is put together of pieces."""

    @property
    def text(self) -> str: ...
    @property
    def pieces(self) -> int: ...
    def add(self, piece: dict[str, Any], /) -> bool: ...


def reporting(answer: Growing, tokens_max: int | None, report: ReportProgress, *, streamed: bool) -> Take:
    """Return what takes each piece, and tells a few times a second how far it is."""
    now_s = asyncio.get_running_loop().time
    next_report_s = now_s()

    def take(piece: dict[str, Any]) -> bool:
        nonlocal next_report_s
        brought = answer.add(piece)
        if brought and now_s() >= next_report_s:
            next_report_s = now_s() + _REPORT_EVERY_S
            fraction = min(1.0, answer.pieces / tokens_max) if tokens_max else None
            message = f"{answer.pieces} tokens"
            if streamed:
                report(so_far(answer.text, fraction=fraction, message=message))
            else:
                report(Progress(fraction=fraction, message=message))
        return brought

    return take
