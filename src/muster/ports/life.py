"""What has a life inside a process, and the traces it leaves."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol


class Lifecycle(Protocol):
    """Everything that runs: started once, stopped in reverse order; a stop too early or too often does nothing."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class SpanKind(StrEnum):
    """Whose side of a conversation a span shows."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


About = Mapping[str, str | int | float]  # what a span is about


class Span(Protocol):
    """Something that takes time, as a part of a trace."""

    @property
    def traceparent(self) -> str:
        """Who continues the trace is to be told this."""
        ...

    def end(self, about: About | None = None, *, error: str | None = None) -> None: ...


class Tracer(Protocol):
    """Keeps spans. It never waits, and never raises: what cannot be kept is dropped."""

    def begin(
        self,
        name: str,
        kind: SpanKind,
        parent: str | None,
        about: About,
        *,
        begun_ms: int | None = None,
    ) -> Span:
        """`parent` is a traceparent; without one, or with what is none, a new trace begins."""
        ...
