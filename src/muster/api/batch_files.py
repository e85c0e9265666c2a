"""Files as OpenAI's API has them: what batches read, and what they leave."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from litestar import delete, get, post
from litestar.datastructures import UploadFile
from litestar.enums import RequestEncodingType
from litestar.params import Body, FromPath, FromQuery, QueryParameter
from litestar.response import Stream
from msgspec import Struct

from muster.api.lists import ListAfter
from muster.api.plane import TheCaller, ThePlane
from muster.domain.batch import KeptFile

_BODY_BYTES_MAX = 536_870_912  # what OpenAI takes; the setting file_bytes_max may be less
_CHUNK_BYTES = 262_144
_LIMIT_MAX = 10_000


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Other parts than these, as some clients send them, are ignored."""

    file: UploadFile
    purpose: str


class FileObject(Struct, frozen=True, kw_only=True):
    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    object: str = "file"
    status: str = "processed"


class FileList(ListAfter[FileObject], frozen=True, kw_only=True):
    pass


class FileDeleted(Struct, frozen=True, kw_only=True):
    id: str
    deleted: bool = True
    object: str = "file"


@post(
    "/v1/files",
    tags=["batches"],
    summary="Send a file of requests: multipart, with `file` and `purpose=batch`",
    status_code=200,
    request_max_body_size=_BODY_BYTES_MAX,
)
async def upload_file(
    plane: ThePlane, caller: TheCaller, data: Annotated[Upload, Body(media_type=RequestEncodingType.MULTI_PART)]
) -> FileObject:
    name = data.file.filename or "file"
    return _view(await plane.batches.send_file(caller, name, data.purpose, _chunks(data.file)))


@get("/v1/files", tags=["batches"], summary="Your files, the newest first")
async def files(
    plane: ThePlane,
    caller: TheCaller,
    purpose: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=_LIMIT_MAX)] = _LIMIT_MAX,
    order: FromQuery[str] = "desc",
) -> FileList:
    found = [file for file in await plane.batches.files(caller) if purpose is None or file.purpose == purpose]
    if order == "asc":
        found.reverse()
    return FileList.of([_view(file) for file in found], after, limit)


@get("/v1/files/{file_id:str}", tags=["batches"], summary="One file")
async def one_file(plane: ThePlane, caller: TheCaller, file_id: FromPath[str]) -> FileObject:
    return _view(await plane.batches.file(caller, file_id))


@get(
    "/v1/files/{file_id:str}/content",
    tags=["batches"],
    summary="What is in a file",
    media_type="application/octet-stream",
)
async def file_content(plane: ThePlane, caller: TheCaller, file_id: FromPath[str]) -> Stream:
    file = await plane.batches.file(caller, file_id)
    headers = {"Content-Length": str(file.bytes), "X-Content-Type-Options": "nosniff"}
    return Stream(plane.batches.content(file), media_type="application/octet-stream", headers=headers)


@delete("/v1/files/{file_id:str}", tags=["batches"], summary="Delete a file", status_code=200)
async def delete_file(plane: ThePlane, caller: TheCaller, file_id: FromPath[str]) -> FileDeleted:
    await plane.batches.remove_file(caller, file_id)
    return FileDeleted(id=file_id)


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    await file.seek(0)
    while chunk := await file.read(_CHUNK_BYTES):
        yield chunk


def _view(file: KeptFile) -> FileObject:
    return FileObject(
        id=file.file_id,
        bytes=file.bytes,
        created_at=file.created_at_ms // 1000,
        filename=file.filename,
        purpose=file.purpose,
    )


HANDLERS = [upload_file, files, one_file, file_content, delete_file]
