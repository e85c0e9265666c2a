"""Batches as OpenAI's API has them."""

from typing import Annotated

from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Struct

from muster.api.lists import ListAfter
from muster.api.plane import AnyRequest, TheCaller, ThePlane
from muster.control.batches.service import WantedBatch
from muster.domain.batch import Batch, BatchStatus, LineError
from muster.domain.trace import traceparent_in


class RequestCounts(Struct, frozen=True, kw_only=True):
    total: int
    completed: int
    failed: int


class BatchError(Struct, frozen=True, kw_only=True):
    code: str
    message: str
    line: int | None
    param: str | None


class BatchErrors(Struct, frozen=True, kw_only=True):
    data: list[BatchError]
    object: str = "list"


class BatchObject(Struct, frozen=True, kw_only=True):
    """Times in seconds since the epoch. The output file has the answers, the error file what has none."""

    id: str
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None
    object: str = "batch"


class BatchList(ListAfter[BatchObject], frozen=True, kw_only=True):
    pass


@post("/v1/batches", tags=["batches"], summary="Have the requests of a file done, when nobody waits", status_code=200)
async def create_batch(
    plane: ThePlane, caller: TheCaller, request: AnyRequest, data: JSONBody[WantedBatch]
) -> BatchObject:
    return _view(await plane.batches.create(caller, data, traceparent_in(request.headers.get("traceparent"))))


@get("/v1/batches", tags=["batches"], summary="Your batches, the newest first")
async def batches(
    plane: ThePlane,
    caller: TheCaller,
    after: FromQuery[str | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 20,
) -> BatchList:
    return BatchList.of([_view(batch) for batch in await plane.batches.all(caller)], after, limit)


@get("/v1/batches/{batch_id:str}", tags=["batches"], summary="One batch, and how far it is")
async def batch(plane: ThePlane, caller: TheCaller, batch_id: FromPath[str]) -> BatchObject:
    return _view(await plane.batches.get(caller, batch_id))


@post(
    "/v1/batches/{batch_id:str}/cancel",
    tags=["batches"],
    summary="Have a batch end with what it has",
    status_code=200,
)
async def cancel_batch(plane: ThePlane, caller: TheCaller, batch_id: FromPath[str]) -> BatchObject:
    return _view(await plane.batches.cancel(caller, batch_id))


def _view(batch: Batch) -> BatchObject:
    def at(status: BatchStatus) -> int | None:
        at_ms = batch.at_ms.get(status.value)
        return None if at_ms is None else at_ms // 1000

    return BatchObject(
        id=batch.batch_id,
        endpoint=batch.endpoint,
        errors=BatchErrors(data=[_error(error) for error in batch.errors]) if batch.errors else None,
        input_file_id=batch.input_file_id,
        completion_window=batch.completion_window,
        status=batch.status,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        created_at=batch.created_at_ms // 1000,
        in_progress_at=at(BatchStatus.IN_PROGRESS),
        expires_at=batch.expires_at_ms // 1000,
        finalizing_at=at(BatchStatus.FINALIZING),
        completed_at=at(BatchStatus.COMPLETED),
        failed_at=at(BatchStatus.FAILED),
        expired_at=at(BatchStatus.EXPIRED),
        cancelling_at=at(BatchStatus.CANCELLING) or _seconds(batch.cancel_asked_ms),
        cancelled_at=at(BatchStatus.CANCELLED),
        request_counts=RequestCounts(total=batch.total, completed=batch.completed, failed=batch.failed),
        metadata=batch.metadata,
    )


def _seconds(at_ms: int | None) -> int | None:
    return None if at_ms is None else at_ms // 1000


def _error(error: LineError) -> BatchError:
    return BatchError(code=error.code, message=error.message, line=error.line, param=error.param)


HANDLERS = [create_batch, batches, batch, cancel_batch]
