"""Files that payloads and results speak of: sent, fetched, and what agents do with those of their jobs."""

import http
import re
from collections.abc import AsyncIterator
from typing import Any

from litestar import Response, get, put
from litestar.params import FromPath
from litestar.response import Stream

from muster.api.plane import AnyRequest, TheCaller, ThePlane
from muster.control.files import FileService, StoredFile
from muster.domain.file import FileRef, file_url
from muster.errors import SwitchedOff
from muster.ids import JobId

_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")
_SHOWN = ("image/", "video/", "audio/")  # by a browser, within a page; anything else it is to keep
_HEADERS = {
    "Accept-Ranges": "bytes",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=60",
}


@put(
    "/api/files/{name:str}",
    tags=["files"],
    summary="Send a file for jobs: the body is its bytes, the answer's url is what a payload names it by",
    status_code=http.HTTPStatus.CREATED,
    request_max_body_size=None,  # the service counts
)
async def send_file(plane: ThePlane, caller: TheCaller, request: AnyRequest, name: FromPath[str]) -> FileRef:
    return await _files(plane.files).send(caller, name, request.stream())


@get(
    "/api/files/{owner:str}/{name:str}",
    tags=["files"],
    summary="A file of a job, or one that was sent; a Range gives a part of it",
)
async def file(
    plane: ThePlane, caller: TheCaller, request: AnyRequest, owner: FromPath[str], name: FromPath[str]
) -> Response[Any]:
    files = _files(plane.files)
    found = await files.find_for(caller, owner, name)
    return _answer(files, found, request.headers.get("range", ""))


@put(
    "/api/agent/files/{job_id:str}/{attempt:int}/{name:str}",
    tags=["agents"],
    summary="Keep a file of a running attempt",
    status_code=http.HTTPStatus.CREATED,
    request_max_body_size=None,
)
async def put_agent_file(
    plane: ThePlane,
    caller: TheCaller,
    request: AnyRequest,
    job_id: FromPath[str],
    attempt: FromPath[int],
    name: FromPath[str],
) -> FileRef:
    return await _files(plane.files).put_file(
        JobId(job_id), attempt, name, request.stream(), check_node=caller.check_speaks_for
    )


@get(
    "/api/agent/files/{job_id:str}/{attempt:int}/{owner:str}/{name:str}",
    tags=["agents"],
    summary="Read a file for a running attempt",
    media_type="application/octet-stream",
)
async def agent_file(
    plane: ThePlane,
    caller: TheCaller,
    job_id: FromPath[str],
    attempt: FromPath[int],
    owner: FromPath[str],
    name: FromPath[str],
) -> Stream:
    chunks = _files(plane.files).get_file(
        JobId(job_id), attempt, file_url(owner, name), check_node=caller.check_speaks_for
    )
    return Stream(await _begun(chunks), media_type="application/octet-stream")


HANDLERS = [send_file, file, put_agent_file, agent_file]


def _files(service: FileService | None) -> FileService:
    if service is None:
        raise SwitchedOff("this control plane keeps no files")
    return service


async def _begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Read the first chunk before the answer begins: what is refused must not look like a file."""
    first = await anext(chunks, b"")

    async def all_of_it() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return all_of_it()


def _answer(files: FileService, found: StoredFile, wanted: str) -> Response[Any]:
    shown = "inline" if found.type.startswith(_SHOWN) else "attachment"
    headers = _HEADERS | {"Content-Disposition": f'{shown}; filename="{found.name}"'}
    part = _part(wanted, found.bytes)
    if part is None:
        headers |= {"Content-Range": f"bytes */{found.bytes}"}
        return Response(b"", status_code=http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=headers)
    start, end = part
    headers |= {"Content-Length": str(end - start)}
    status = http.HTTPStatus.OK
    if (start, end) != (0, found.bytes):
        headers |= {"Content-Range": f"bytes {start}-{end - 1}/{found.bytes}"}
        status = http.HTTPStatus.PARTIAL_CONTENT
    return Stream(files.read(found, start, end), media_type=found.type, headers=headers, status_code=status)


def _part(wanted: str, size: int) -> tuple[int, int] | None:
    """Return which bytes a `Range` asks for: all where it is not understood (RFC 9110, 14.2), None where none are."""
    match = _RANGE.match(wanted.strip())
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    return (start, end) if start < end else None
