"""An Ollama server that runs already: its own lists say more than OpenAI's, its own API knows more of what it can."""

import asyncio
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from muster.connectors.engine import refusal
from muster.connectors.ollama_answer import OllamaAnswer, with_usage
from muster.connectors.ollama_request import PATHS, SHAPES, read_request
from muster.connectors.openai import OpenAIConnector, base_url, choose_model, reporting
from muster.connectors.openai_request import Kind
from muster.connectors.payload import json_schema
from muster.connectors.pieces import JsonLines
from muster.domain.job import ClaimedJob, Progress
from muster.domain.model import Model
from muster.domain.service import Dialect, Service
from muster.errors import UpstreamFailed
from muster.ports import JobFiles, ReportProgress

_OK = 200
_PULLED = "success"
_STATUS_CHARS_MAX = 200
_BYTES_PER_MB = 1024 * 1024


class _Details(Struct):
    family: str | None = None
    parameter_size: str | None = None
    quantization_level: str | None = None
    context_length: int | None = None


class _Tag(Struct):
    name: str
    size: int | None = None
    digest: str | None = None
    modified_at: datetime | None = None
    details: _Details = field(default_factory=_Details)
    capabilities: tuple[str, ...] = ()


class _Tags(Struct):
    models: tuple[_Tag, ...]


class _Resident(Struct):
    name: str
    context_length: int | None = None
    size: int | None = None  # in memory, of any kind
    size_vram: int | None = None


class _Residents(Struct):
    models: tuple[_Resident, ...]


class _Version(Struct):
    version: str


class OllamaConnector(OpenAIConnector):
    name = "ollama"
    provides = ("ollama", "openai")

    async def _state(self, base: str) -> Service:
        _, tags, residents = await asyncio.gather(
            self._engine.read(f"{base}/api/version", _Version),
            self._engine.read(f"{base}/api/tags", _Tags),
            self._engine.read(f"{base}/api/ps", _Residents),
        )
        resident = {model.name: model for model in residents.models}
        return self._service(
            base,
            dialects=(Dialect.OLLAMA, Dialect.OPENAI),
            models=tuple(_model(tag, resident.get(tag.name)) for tag in tags.models),
        )

    @staticmethod
    def check(payload: Any) -> None:
        read_request(payload)

    @staticmethod
    def schema() -> dict[str, Any]:
        return json_schema(*SHAPES.values())

    async def run(self, job: ClaimedJob, service: Service | None, report: ReportProgress, files: JobFiles) -> Any:
        """Answer in the API that the job asked for; a job for `openai` must look the same whoever runs it."""
        if job.spec.service_required != self.name:
            return await super().run(job, service, report, files)
        request = read_request(job.spec.payload)
        if service is None or service.url is None:
            raise UpstreamFailed("no ollama server runs here at present")
        url = base_url(service.url) + PATHS[request.kind]
        body = request.body | {"model": choose_model(request, service)}
        if request.kind is Kind.EMBEDDING:
            return with_usage(await self._engine.ask(url, body))
        answer = OllamaAnswer(request.kind)
        take = reporting(answer, request.tokens_max, report, streamed=request.streamed)
        await self._engine.stream(url, body | {"stream": True}, take, JsonLines())
        if not answer.finished:
            raise UpstreamFailed(f"{url} ended its answer too early, after {answer.pieces} pieces")
        return answer.result()

    async def pull_model(self, service: Service, model: str, report: ReportProgress) -> dict[str, Any]:
        """Have it fetch a model from its library; what it says of the way is told as it comes."""
        last: dict[str, Any] = {}

        def take(line: dict[str, Any]) -> None:
            nonlocal last
            last = line
            report(_progress(line))

        await self._engine.follow(f"{base_url(service.url or '')}/api/pull", {"model": model}, take)
        if last.get("status") != _PULLED:
            raise UpstreamFailed(f"{service.name} ended the pull of {model} with {last.get('status')!r}")
        return {"model": model, "service": service.name}

    async def load_model(self, service: Service, model: str, *, stays: bool) -> dict[str, Any]:
        """Ask it for nothing, which loads the model; one that `stays` does so until it is told otherwise."""
        body = {"model": model, "stream": False} | ({"keep_alive": -1} if stays else {})
        await self._engine.ask(f"{base_url(service.url or '')}/api/generate", body)
        return {"model": model, "service": service.name}

    async def unload_model(self, service: Service, model: str) -> dict[str, Any]:
        url = f"{base_url(service.url or '')}/api/generate"
        look = await self._engine.look(url, {"model": model, "keep_alive": 0})
        if look.status != _OK:
            raise refusal(look.status, look.value)
        return {"model": model, "service": service.name}

    async def remove_model(self, service: Service, model: str) -> dict[str, Any]:
        look = await self._engine.look(f"{base_url(service.url or '')}/api/delete", {"model": model}, method="DELETE")
        if look.status != _OK:
            raise refusal(look.status, look.value)
        return {"model": model, "service": service.name}


def _progress(line: dict[str, Any]) -> Progress:
    total, completed, status = line.get("total"), line.get("completed"), line.get("status")
    fraction = None
    if isinstance(total, int) and isinstance(completed, int) and 0 <= completed <= total and total > 0:
        fraction = completed / total
    return Progress(fraction=fraction, message=status[:_STATUS_CHARS_MAX] if isinstance(status, str) else None)


def _model(tag: _Tag, resident: _Resident | None) -> Model:
    details = tag.details
    return Model(
        name=tag.name,
        resident=resident is not None,
        size_bytes=tag.size,
        memory_mb=_memory_mb(resident),
        digest=tag.digest,
        family=details.family,
        parameter_size=details.parameter_size,
        quantization=details.quantization_level,
        context_length=(resident and resident.context_length) or details.context_length,
        capabilities=tag.capabilities or _usual_capabilities(details.family),
        modified_at_ms=None if tag.modified_at is None else round(tag.modified_at.timestamp() * 1000),
    )


def _memory_mb(resident: _Resident | None) -> int | None:
    """Return what it takes of the GPUs, or of the machine where it is on none."""
    taken_bytes = (resident.size_vram or resident.size) if resident is not None else None
    return None if taken_bytes is None else round(taken_bytes / _BYTES_PER_MB)


def _usual_capabilities(family: str | None) -> tuple[str, ...]:
    """Stand in for what older servers do not say; they embed with any model, and write with all but BERT's kin."""
    return ("embedding",) if "bert" in (family or "") else ("completion", "embedding")
