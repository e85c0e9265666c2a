"""Errors as gRPC status codes, and back."""

import grpc

from muster.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    MusterError,
    NotFound,
    PayloadTooLarge,
    QueueFull,
    Unauthorized,
    UpstreamFailed,
    UpstreamTimeout,
)

_CODES: tuple[tuple[type[MusterError], grpc.StatusCode], ...] = (
    (PayloadTooLarge, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (InvalidInput, grpc.StatusCode.INVALID_ARGUMENT),
    (Unauthorized, grpc.StatusCode.UNAUTHENTICATED),
    (Forbidden, grpc.StatusCode.PERMISSION_DENIED),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (Conflict, grpc.StatusCode.FAILED_PRECONDITION),
    (QueueFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (UpstreamTimeout, grpc.StatusCode.DEADLINE_EXCEEDED),
)
_OF_US: dict[grpc.StatusCode, type[MusterError]] = {
    grpc.StatusCode.UNAUTHENTICATED: Unauthorized,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
}


def code_of(error: MusterError) -> grpc.StatusCode:
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.UNAVAILABLE if error.retriable else grpc.StatusCode.INTERNAL


def error_of(url: str, code: grpc.StatusCode, details: str) -> MusterError:
    """Say why no stream is open."""
    kind = _OF_US.get(code)
    if kind is not None:
        return kind(details)
    why = details.rpartition("last error: ")[2].removeprefix("UNKNOWN: ")  # before it gRPC only says that it failed
    return UpstreamFailed(f"{url} cannot be reached: {why or code.name}")
