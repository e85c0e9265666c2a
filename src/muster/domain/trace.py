"""Traces: which one something belongs to (W3C Trace Context), and what is told to whoever keeps them."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")


def traceparent_in(text: str | None) -> str | None:
    """Return it if it is one; what is not is left out, as the specification has it."""
    return text if text is not None and _TRACEPARENT.match(text) else None


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
