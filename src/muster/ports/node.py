"""Devices and services on a node."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from muster.domain.file import FileRef
from muster.domain.gpu import Gpu
from muster.domain.job import ClaimedJob, Progress
from muster.domain.node import Resources
from muster.domain.service import Service


class GpuProbe(Protocol):
    async def read(self) -> tuple[Gpu, ...]:
        """Return within its deadline; unreadable figures are None, no driver is an empty tuple."""
        ...


class HostProbe(Protocol):
    def read(self) -> Resources: ...


ReportProgress = Callable[[Progress], None]


class JobFiles(Protocol):
    """What is too large for a payload or a result: kept by the control plane, spoken of by reference."""

    async def put(self, name: str, data: bytes | Path) -> FileRef:
        """Keep a file of this attempt until its job is forgotten; PayloadTooLarge where there is a limit."""
        ...

    async def get(self, url: str, into: Path) -> int:
        """Fetch a file that a payload names by its `url`; return its size in bytes."""
        ...


class Connector(Protocol):
    """Code by which a worker drives a kind of service."""

    @property
    def name(self) -> str: ...
    @property
    def provides(self) -> tuple[str, ...]:
        """The `service_required` values it serves, its own name first."""
        ...

    @property
    def needs_service(self) -> bool: ...

    async def probe(self, url: str) -> Service:
        """Return name, status, models and slots of the service at `url`; raise UpstreamFailed when it is silent."""
        ...

    def check(self, payload: Any) -> None:
        """Raise InvalidInput naming the field, at submit."""
        ...

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of its payloads; `check` may ask for more than it can say."""
        ...

    async def run(self, job: ClaimedJob, service: Service | None, report: ReportProgress, files: JobFiles) -> Any:
        """Return the result (JSON); raise MusterError, whose `retriable` decides about another attempt.

        Cancelled, it has a second to tell its service.
        """
        ...


class JobKind(Struct, frozen=True, kw_only=True):
    """What a control plane needs of a connector: the names of its jobs, and what their payloads may be."""

    name: str
    provides: tuple[str, ...]
    check: Callable[[Any], None]
    schema: Mapping[str, Any]


@runtime_checkable
class PullsModels(Protocol):
    """A connector whose services fetch models themselves."""

    async def pull_model(self, service: Service, model: str, report: ReportProgress) -> Any:
        """Return what was fetched (JSON), once the service has it whole."""
        ...


@runtime_checkable
class UnloadsModels(Protocol):
    """A connector whose services can let go of a model's memory."""

    async def unload_model(self, service: Service, model: str) -> Any: ...


@runtime_checkable
class LoadsModels(UnloadsModels, Protocol):
    """A connector whose services take a model into memory and let go of it, as they are told."""

    async def load_model(self, service: Service, model: str, *, stays: bool) -> Any:
        """Return once it is in memory. `stays`: the service is not to let go of it by itself."""
        ...


@runtime_checkable
class FreesMemory(Protocol):
    """A connector whose services can let go of all GPU memory that they hold between jobs."""

    async def free_memory(self, service: Service) -> None: ...


@runtime_checkable
class RemovesModels(Protocol):
    """A connector whose services can delete a model from their disk."""

    async def remove_model(self, service: Service, model: str) -> Any: ...
