"""Errors as answers: one JSON shape with code, message, retriable and, where there is one, the field."""

import http
import math

import msgspec
import structlog
from litestar import Response
from litestar.exceptions import HTTPException, SerializationException

from muster.api.plane import AnyRequest
from muster.errors import InvalidInput, MusterError, NotFound, PayloadTooLarge
from muster.gateway.dialects import openai
from muster.wire.codec import invalid, not_json

log = structlog.get_logger()

_OPENAI = ("/v1/batches", "/v1/files")  # the gateway has the others

_NO_BODY = "Object missing required field `data`"  # as the framework has it


class Unexpected(MusterError):
    """A fault of ours: logged with its traceback, shown without."""


def headers_of(error: MusterError) -> dict[str, str]:
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
        headers["X-Backoff-Ms"] = str(math.ceil(error.retry_after_s * 1000))
    if error.http_status == http.HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def body_of(error: MusterError, path: str) -> dict[str, object]:
    """Render an error in the words of the API that the path belongs to."""
    return openai.error(error) if path.startswith(_OPENAI) else error.to_dict()


def problem(error: MusterError, path: str = "") -> Response[dict[str, object]]:
    return Response(body_of(error, path), status_code=error.http_status, headers=headers_of(error))


def on_muster_error(request: AnyRequest, error: MusterError) -> Response[dict[str, object]]:
    return problem(error, request.url.path)


def on_http_error(request: AnyRequest, error: HTTPException) -> Response[dict[str, object]]:
    cause, path = error.__cause__, request.url.path
    if isinstance(cause, msgspec.ValidationError):
        return problem(_named(invalid(cause)), path)
    if error.status_code == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        bytes_max = request.route_handler.resolve_request_max_body_size()
        return problem(too_large(bytes_max, by_setting=bytes_max == request.app.request_max_body_size), path)
    if isinstance(cause, SerializationException):
        return problem(not_json(cause.__cause__ or cause), path)
    if error.status_code == http.HTTPStatus.NOT_FOUND:
        return problem(NotFound(f"there is nothing at {path}; /docs lists what there is"), path)
    body = body_of(InvalidInput(error.detail or http.HTTPStatus(error.status_code).phrase), path)
    if error.status_code == http.HTTPStatus.METHOD_NOT_ALLOWED:
        takes = ", ".join(sorted((error.headers or {}).get("allow", "").split(", ")))
        body |= {"code": "method_not_allowed", "message": f"{path} takes {takes}, not {request.method}"}
    return Response(body, status_code=error.status_code, headers=error.headers)


def too_large(bytes_max: int | None, *, by_setting: bool = True) -> PayloadTooLarge:
    setting = " (setting request_bytes_max)" if by_setting else ""
    return PayloadTooLarge(f"the body may have {bytes_max} bytes{setting}", field="body")


def on_bad_text(_: AnyRequest, error: UnicodeDecodeError) -> Response[dict[str, object]]:
    return problem(InvalidInput(f"the body is not UTF-8: {error.reason} at byte {error.start}"))


def on_unexpected(request: AnyRequest, error: Exception) -> Response[dict[str, object]]:
    log.error("request_failed", method=request.method, path=request.url.path, exc_info=error)
    return problem(Unexpected("something broke in the control plane; its log has the details"))


def _named(error: InvalidInput) -> InvalidInput:
    """Drop the framework's own name for the body from the field's path."""
    if error.message == _NO_BODY:
        return not_json(error, b"")
    field = (error.field or "").removeprefix("data").lstrip(".")
    return InvalidInput(error.message, field=field or None)
