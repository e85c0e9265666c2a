"""Files in a bucket of S3 or a store that speaks its API: what several control planes share.

boto3 blocks, so its calls run on threads; a file is collected on disk first, for its size decides how it is sent.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from muster.errors import SetupError, StoreUnavailable
from muster.ports import Files

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

T = TypeVar("T")

_CHUNK_BYTES = 256 * 1024
_IN_MEMORY_BYTES = 1024 * 1024
_DELETED_AT_ONCE = 1000  # the API's limit
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})


class S3Files:
    """A BlobStore below `prefix` in one bucket, which must be there. Credentials come as boto3 finds them."""

    def __init__(self, bucket: str, prefix: str = "muster/", *, region: str = "", endpoint_url: str = "") -> None:
        config = Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 3, "mode": "standard"})
        try:
            self._client: S3Client = boto3.client(
                "s3", region_name=region or None, endpoint_url=endpoint_url or None, config=config
            )
        except (BotoCoreError, ValueError) as error:
            raise SetupError(f"files cannot be kept in S3: {error}", next_step="correct file_store_url") from None
        self._bucket = bucket
        self._prefix = prefix

    async def put(self, owner: str, name: str, data: AsyncIterable[bytes]) -> None:
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
            async for chunk in data:
                await asyncio.to_thread(file.write, chunk)
            file.seek(0)
            await self._do(self._client.upload_fileobj, file, self._bucket, self._key(owner, name))

    async def size(self, owner: str, name: str) -> int | None:
        try:
            head = await self._do(self._client.head_object, Bucket=self._bucket, Key=self._key(owner, name))
        except _NotThere:
            return None
        return head["ContentLength"]

    async def read(self, owner: str, name: str, start: int, end: int) -> AsyncIterator[bytes]:
        if start >= end:
            return
        key, wanted = self._key(owner, name), f"bytes={start}-{end - 1}"
        answer = await self._do(self._client.get_object, Bucket=self._bucket, Key=key, Range=wanted)
        body = answer["Body"]
        try:
            while chunk := await self._do(body.read, _CHUNK_BYTES):
                yield chunk
        finally:
            body.close()

    async def owners(self) -> dict[str, Files]:
        return await self._do(self._look_around)

    async def delete(self, owner: str) -> None:
        await self._do(self._delete_all, self._key(owner, ""))

    def _key(self, owner: str, name: str) -> str:
        return f"{self._prefix}{owner}/{name}"

    def _look_around(self) -> dict[str, Files]:
        found: dict[str, Files] = {}
        for entry in self._entries(self._prefix):
            owner = entry["Key"].removeprefix(self._prefix).partition("/")[0]
            before = found.get(owner, Files(bytes=0, changed_at_ms=0))
            changed_at_ms = round(entry["LastModified"].timestamp() * 1000)
            found[owner] = Files(
                bytes=before.bytes + entry["Size"], changed_at_ms=max(before.changed_at_ms, changed_at_ms)
            )
        return found

    def _delete_all(self, prefix: str) -> None:
        keys = [entry["Key"] for entry in self._entries(prefix)]
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            objects: Any = [{"Key": key} for key in keys[start : start + _DELETED_AT_ONCE]]
            self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})

    def _entries(self, prefix: str) -> list[Any]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return [entry for page in pages for entry in page.get("Contents", ())]

    async def _do(self, act: Callable[..., T], *args: object, **kwargs: object) -> T:
        try:
            return await asyncio.to_thread(act, *args, **kwargs)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _MISSING:
                raise _NotThere(f"not in the bucket {self._bucket}") from None
            raise StoreUnavailable(f"the bucket {self._bucket} refused: {error}") from None
        except (BotoCoreError, boto3.exceptions.Boto3Error, OSError) as error:
            raise StoreUnavailable(f"the bucket {self._bucket} cannot be used: {error}") from None


class _NotThere(StoreUnavailable):
    """Also what is asked for by name in a bucket that is not there."""
